// Which sets of tensors one kernel can use for what it stores, by the table's steps alone: whatever the loops, the extents
// and the number of steps. Of all sets of the tensors that stand between kernels hardly any can be: a few hundred of 24,000.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "block.hpp"
#include "hash.hpp"

namespace tilesmith {

// Sets from which something can be made that uses all of them: what a tensor adds to them when it is met follows from what
// there was. Nothing that a kernel can make is missing. Of many tensors, and where a kernel may have many, there can be more
// than it takes to search without them; so they are found by as many steps as the search can afford.
class Bundles {
  public:
    using Id = std::uint16_t; // of a tensor, as they were met
    static constexpr std::size_t kMost = 8; // in a bundle

    struct Bundle {
        std::array<Id, kMost> members{}; // sorted
        std::uint8_t size = 0;
        bool between = false, last = false; // whether a kernel between others, or a last one, can store something
        std::uint64_t mask = 0; // a bit for each member; where there are more than 64 tensors some share one
        std::uint64_t hash = 0;

        std::span<const Id> all() const { return {members.data(), size}; }
    };

    static constexpr std::int64_t kFirstSteps = 1 << 18; // about a millisecond

    // `inputs` of one kernel; `steps` that may be taken at once.
    Bundles(const Space &space, const BlockLimits &limits, int inputs, std::int64_t steps = kFirstSteps);

    Id meet(Tensor t);
    // Whether the bundles of this and all tensors before it are known.
    bool knows(Id id) const { return id < known_; }
    // Takes so many steps more, if there are any to take.
    void afford(std::size_t steps);
    // Whether one kernel, the last or another, can use exactly these for what it stores. By their hashes.
    bool any(std::span<const std::uint64_t> hashes, bool last) const;
    // Whether a last kernel has but one store, so that its bundles are these: those that have a tensor.
    bool lists_last() const { return lists_last_; }
    std::span<const std::uint32_t> last_with(Id id) const { return last_with_[id]; }
    const Bundle &operator[](std::uint32_t bundle) const { return all_[bundle]; }

  private:
    static constexpr std::uint32_t kNone = ~std::uint32_t{0};
    static constexpr std::size_t kMostMade = 1 << 18; // some 20 MB for each worker

    // What a class can be made of.
    struct From {
        std::uint64_t mask;
        std::uint32_t bundle;
        std::uint8_t size;
    };
    struct Work {
        Class made;
        From from;
    };

    std::uint32_t bundle(const Bundle &wanted);
    std::uint32_t united(std::uint32_t a, std::uint32_t b);
    void make(Class c, std::uint32_t bundle);
    void settle();

    const Space &space_;
    std::size_t most_;
    bool pairs_, connected_, lists_last_;
    std::vector<std::uint8_t> stored_between_, stored_last_; // of each class
    FlatMap<Id> ids_;
    std::vector<std::uint64_t> hashes_; // of each tensor
    std::vector<Class> classes_;        // of each tensor
    std::size_t known_ = 0, begun_ = 0; // tensors
    std::size_t made_count_ = 0;
    std::int64_t steps_; // that are left
    FlatMap<std::uint32_t> places_; // of bundles, by their hashes
    std::vector<Bundle> all_;
    std::vector<std::vector<std::uint32_t>> last_with_; // of each tensor
    FlatMap<std::uint8_t> has_;             // classes and bundles
    std::vector<std::vector<From>> made_;   // of each class
    std::vector<std::size_t> done_;         // of these
    std::vector<Work> work_;
    std::size_t next_ = 0; // of it
};

} // namespace tilesmith
