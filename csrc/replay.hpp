// What the values of an implementation are: its steps, followed through the table.
#pragma once

#include <vector>

#include "block.hpp"

namespace tilesmith {

enum class Phase : std::uint8_t { varying, invariant, after };

struct Replayed {
    std::vector<Class> classes; // of loads, then of steps
    std::vector<Phase> phases;
    std::vector<Free> tiles;    // the parts of each value that lie in one block's tile
    Free looped = 0;            // parts that the loop runs over
    Free outside = 0;           // parts that no tile has: looped ones, and the grid part of a split

    std::size_t loads = 0;
};

Replayed replay(const Space &space, const Kernels &kernels, const Implementation &implementation);

} // namespace tilesmith
