// Who searches, and how they share the work.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tilesmith {

// dealt: work is split once and dealt out in turn. shared: who has none gets some of the others'.
enum class Sharing : std::uint8_t { dealt, shared };
enum class Order : std::uint8_t { dfs, bfs };

struct Team {
    Sharing sharing = Sharing::shared;
    Order order = Order::dfs;
    int threads = 1;
    std::size_t frontier_bytes = 64 << 20; // that all keep breadth-first; what does not fit is searched depth-first
    std::uint64_t graphs = 0;              // that end the search; 0 is no limit
    bool timeline = false;
    int ranks = 0; // processes that search together; 0 where there is but this one
    int rank = 0;
};

} // namespace tilesmith
