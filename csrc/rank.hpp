// Which of many programs are worth measuring: those that fit, ordered by what their schedules cost.
#pragma once

#include <span>
#include <vector>

#include "derive.hpp"
#include "kernels.hpp"

namespace tilesmith {

struct Ranking {
    std::vector<Derivation> graphs;    // the cheapest first
    std::uint64_t implementations = 0; // that the programs use
    std::uint64_t unfit = 0;           // of those, for which no schedule fits
    std::uint64_t schedules = 0;       // tried
};

// At most `keep` of the programs, of every implementation and number of split parts. Programs with a kernel that no
// schedule fits go first. Then a few are kept for their estimate; of every point of the front of bytes, launches,
// operations and traffic on the chip the cheapest program; what is within 10 % of such a point, the cheapest first; and if
// there is room left, the cheapest of the others. Ties go to what was found first.
Ranking rank(const Space &space, const Sizes &sizes, const Device &device, const Plans &plans,
             std::span<const std::int64_t> splits, std::size_t keep);

} // namespace tilesmith
