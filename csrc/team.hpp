// Who searches, and what each of them did.
#pragma once

#include "block.hpp"
#include "track.hpp"

namespace tilesmith {

// dealt: work is split once and dealt out in turn. shared: who has none gets some of the others'.
enum class Sharing : std::uint8_t { dealt, shared };
enum class Order : std::uint8_t { dfs, bfs };

struct Team {
    Sharing sharing = Sharing::shared;
    Order order = Order::dfs;
    int threads = 1;
    std::size_t frontier_bytes = 64 << 20; // that a worker keeps breadth-first; what does not fit is searched depth-first
    std::uint64_t graphs = 0;              // that end the search; 0 is no limit
    bool timeline = false;
    int ranks = 0; // processes that search together; 0 where there is but this one
    int rank = 0;
};

struct Worker {
    Counters counters;
    std::uint64_t items = 0; // pieces of work
    std::uint64_t nodes = 0; // programs that it continued, sets of tensors that it searched
    double busy_s = 0, wait_s = 0, steal_s = 0, oracle_s = 0;
    std::vector<Span> spans; // where a timeline is kept

    void clock(Track &track) {
        busy_s += track.seconds(Activity::busy);
        wait_s += track.seconds(Activity::waiting);
        steal_s += track.seconds(Activity::stealing);
        oracle_s += track.seconds(Activity::oracle);
        const auto more = track.take();
        spans.insert(spans.end(), more.begin(), more.end());
    }
};

} // namespace tilesmith
