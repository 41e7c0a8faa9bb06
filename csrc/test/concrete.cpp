// The concrete space shared by threads: whatever the schedule, the order and the number of threads, the same is found.

#include <cstdio>
#include <cstdlib>

#include "../concrete.hpp"

namespace {

using namespace tilesmith;
using namespace tilesmith::concrete;

// exp(X·W), its sum of 64 terms written as six sums of two.
concrete::Problem product() {
    concrete::Problem problem;
    Program &program = problem.degrees.program;
    problem.degrees.primes = {2};
    program.named = true;
    program.parts.push_back(0);
    program.inputs = {{0, 0}, {1, 0}};
    program.functions = {{Fn::scale, 0, -1, 0}, {Fn::exp, -1, -1, 0}};
    program.nodes = {{Term::input, 0, 0, 0}, {Term::input, 1, 0, 0}, {Term::mul, 0, 1, 0}};
    for (int i = 0; i < 6; ++i) program.nodes.push_back({Term::apply, 2 + i, 0, 0});
    program.nodes.push_back({Term::apply, 8, 1, 0});
    program.outputs = {9};
    problem.names = {"p2", "exp"};
    problem.inputs = {{{8, 64}, 2}, {{64, 32}, 2}};
    problem.outputs = {{{8, 32}, 2}};
    problem.unary = {1};
    return problem;
}

void demand(bool good, const char *what) {
    if (good) return;
    std::fprintf(stderr, "%s\n", what);
    std::exit(1);
}

} // namespace

int main() {
    Rules rules;
    rules.bounded = true;
    rules.kernel_ops = 1;
    rules.block_ops = 7;
    Control control;
    const Space space(product(), rules, {});
    const Roots roots(space, control);
    demand(roots.size() > 10, "there are roots");

    std::uint64_t states = 0, taken = 0;
    std::size_t found = 0;
    for (const Order order : {Order::dfs, Order::bfs})
        for (const Sharing sharing : {Sharing::dealt, Sharing::shared})
            for (const int threads : {1, 2, 4, 8}) {
                SharedAnswers shared;
                const Share share = share_out(roots, {}, shared, control, {.sharing = sharing, .order = order, .threads = threads, .frontier_bytes = 1 << 20, .timeline = threads == 4});
                Counts counts;
                for (const Counts &each : share.counts) counts += each;
                if (!states) states = counts.states, found = share.found.size();
                demand(counts.states == states, "every state is met once");
                demand(counts.roots == roots.size(), "every root is searched once");
                demand(share.found.size() == found, "the same graphs are found");
                if (sharing == Sharing::shared && threads > 1) taken += counts.taken;
            }
    demand(found > 0, "graphs are found");
    demand(taken > 0, "idle threads take open work");
    std::printf("%llu states, %zu graphs, %llu times work was taken\n", static_cast<unsigned long long>(states), found,
                static_cast<unsigned long long>(taken));
}
