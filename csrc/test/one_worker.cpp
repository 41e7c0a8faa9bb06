// Processor time of listings by one worker: for benchmarks/superopt_one_worker.py.
//   one_worker PROGRAM KERNELS OPERATORS shared|dealt|bfs|ranks REPEATS
// prints states, graphs of the last search and the seconds of each. `ranks` is one rank, that another thread offers work.

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>

#include "../control.hpp"
#include "../kernels.hpp"
#include "programs.hpp"

namespace {

using namespace tilesmith;

void feed(Listing &listing) {
    const auto wait = [] { std::this_thread::sleep_for(std::chrono::microseconds(20)); };
    while (listing.begin().empty()) wait();
    for (std::size_t next = 0; next < listing.items(); wait())
        while (next < listing.items() && listing.waiting() < 4) listing.offer(next++);
    while (!listing.idle()) wait();
    listing.end();
}

} // namespace

int main(int count, char **given) {
    if (count != 6) return 2;
    const std::string way = given[4];
    const Program program = test::program(given[1]);
    const Table table = build_table(program, {});
    const Space space(program, table, {.fused_accumulators = true});
    const BlockLimits block{.operators = std::atoi(given[3]), .unscaled = true, .whole = true};
    const KernelLimits limits{.block = block, .kernels = std::atoi(given[2])};
    const Team team{.sharing = way == "dealt" ? Sharing::dealt : Sharing::shared,
                    .order = way == "bfs" ? Order::bfs : Order::dfs,
                    .ranks = way == "ranks"};
    for (int left = std::atoi(given[5]); left > 0; --left) {
        const double start_s = cpu_seconds();
        Control control;
        Listing listing(space, limits, control, team);
        std::thread feeder;
        if (team.ranks) feeder = std::thread([&] { feed(listing); });
        listing.run();
        std::printf("%.9f\n", cpu_seconds() - start_s);
        if (team.ranks) feeder.join();
        if (left == 1)
            std::printf("%llu %llu\n", static_cast<unsigned long long>(listing.workers()[0].counters.states),
                        static_cast<unsigned long long>(listing.graphs()));
    }
}
