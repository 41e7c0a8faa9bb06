// What each of a team did.
#pragma once

#include "block.hpp"
#include "track.hpp"

namespace tilesmith {

struct Worker {
    Counters counters;
    std::uint64_t items = 0; // pieces of work
    std::uint64_t given = 0; // pieces that it left to others
    std::uint64_t nodes = 0; // programs that it continued, sets of tensors that it searched
    Times times;
};

} // namespace tilesmith
