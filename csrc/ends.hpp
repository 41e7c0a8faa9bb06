// Which tensors so many kernels more can bring to an end: most programs in the making have some that they can't.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <span>
#include <vector>

#include "block.hpp"
#include "classes.hpp"
#include "hash.hpp"

namespace tilesmith {

// Whether the targets can be made of all of some classes and any others beside, by the table's steps alone: whatever the
// loops, the extents and the number of steps. What cannot be so made is of no program that has so many kernels left.
class Ends {
  public:
    // `inputs` of one kernel; `most` kernels will be asked for.
    Ends(const Space &space, const BlockLimits &limits, int inputs, int most);

    // Of more than four classes four are asked about: what ends has no part that does not.
    using Key = Few::Key;

    bool reachable(Key classes, int kernels);

  private:
    using Sets = std::uint32_t; // of sets of the given classes: a bit for each
    static constexpr Sets kNothing = 1;

    bool reduces(Key classes, int kernels);
    const std::vector<Class> &made_of(Key classes);
    // What is made of which of the classes; returns the set of all.
    Sets make_all(Key classes);
    void make(Class c, Sets sets);
    Key after(Key classes, Class made) const { return space_.target(made) ? classes : Few::with(classes, made); }

    const Space &space_;
    int inputs_;
    bool pairs_, several_targets_; // two stores; that can be targets
    std::vector<std::uint8_t> storable_; // where another kernel comes
    std::vector<FlatMap<std::uint8_t>> known_; // by kernels
    FlatMap<std::uint32_t> places_; // in what follows
    std::deque<std::vector<Class>> stores_;
    std::vector<Sets> made_; // of what each class can be made; of others it always can
    std::vector<Class> touched_;
    // What is looked at next is what lies farthest from the targets: then it is seldom looked at twice.
    std::vector<Class> order_;
    std::vector<std::uint16_t> places_of_; // in that order
    std::vector<std::uint64_t> waits_;     // of places, a bit for each
    std::size_t first_ = 0;                // word of these that was written to
};

} // namespace tilesmith
