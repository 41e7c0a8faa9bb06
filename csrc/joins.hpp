// Which values can be made of all of some tensors, by the table's steps alone: whatever the loops, the extents and the
// number of steps. So nothing that a kernel can make is missing, and sets of tensors of which nothing can be made need no
// search.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "space.hpp"

namespace tilesmith {

class Joins {
  public:
    using Word = std::uint64_t;
    using Classes = std::vector<Word>; // a bit for each
    static constexpr std::size_t kMost = 8; // tensors in a set

    struct Made {
        Classes classes;  // that can be made of all of a set of tensors
        Classes partners; // of those
    };

    explicit Joins(const Space &space);

    static bool has(const Classes &classes, Class c) { return classes[c / 64u] >> (c % 64u) & 1; }
    static bool meet(const Classes &x, const Classes &y);

    void make_alone(Class c, Made &made);
    // Of a set, from what is made of its parts: each stands where its members are the bits of the place, and null where
    // that is nothing. Whether there is anything, and what, where there is.
    static bool any(std::span<const Made *const> parts);
    bool make(std::span<const Made *const> parts, Made &made);

  private:
    template <typename Visit> static void each_meeting(std::span<const Made *const> parts, const Visit &visit);
    void start(Made &made);
    void mark(Made &made, Class c);
    void settle(Made &made, std::span<const Made *const> parts);

    const Space &space_;
    std::size_t words_;
    std::vector<Classes> partners_; // of each class
    std::vector<Class> work_;
    Classes some_; // what is made of any part
};

} // namespace tilesmith
