// The concrete space shared by threads: whatever the schedule, the order and the number of threads, the same is found.

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <thread>

#include "../concrete_ranks.hpp"

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

bool same(const Value &a, const Value &b) {
    return a.shape == b.shape && a.expression == b.expression && a.cls == b.cls && a.phase == b.phase && a.uses == b.uses;
}

// The i-th of many states: most in the base's block with some steps more, some after it.
State numbered(const State &base, std::size_t i) {
    State state = base;
    if (i % 5 == 0) {
        state.inside = false;
        state.defined = 1;
        state.graph.last = i;
        state.graph.nodes[state.graph.made++] = {kBlock, 0, 0, Step::kNone};
        state.graph.tensors[state.graph.count++].cls = static_cast<Class>(i);
        return state;
    }
    Block &block = state.blocks[0];
    for (std::size_t step = 0; step < i % 4; ++step) {
        block.body[block.steps++] = {Kind::mul, 0, static_cast<std::uint8_t>(i & 1), 1};
        Value &made = state.block.tiles[state.block.count++];
        made.shape = {{8, static_cast<std::int32_t>(i), i % 3 ? 0 : 4}, i % 3 ? 2 : 3};
        made.cls = static_cast<Class>(i);
        if (i % 7 == 0) made.expression = static_cast<Expression>(i);
        made.phase = static_cast<std::uint8_t>(i % 3);
        ++state.block.tiles[i & 1].uses;
    }
    state.block.last = i;
    state.block.bytes = static_cast<std::int64_t>(i) << 33;
    return state;
}

// States come back as they were pushed, in order, also from what was split off.
void frontiers() {
    State base;
    base.graph.count = 2;
    base.graph.tensors[1].cls = 3;
    base.inside = true;
    base.blocks[0].loads = 2;
    base.blocks[0].setting.loop = 4;
    base.block.count = 2;
    base.block.tiles[1].shape = {{8, 64}, 2};
    for (const std::size_t many : {1u, 2u, 63u, 5000u}) {
        Frontier open(base);
        for (std::size_t i = 0; i < many; ++i) open.push(numbered(base, i));
        std::deque<Frontier> parts;
        while (open.size() > 40) parts.push_back(open.split());
        parts.push_back(std::move(open));
        std::ranges::reverse(parts);
        std::size_t i = 0;
        State state;
        for (Frontier &part : parts) {
            for (std::size_t left = part.size(); part.pop(state); ++i) {
                const State was = numbered(base, i);
                demand(part.size() == --left, "states are counted");
                demand(state.inside == was.inside && state.defined == was.defined && state.graph.last == was.graph.last &&
                           state.graph.count == was.graph.count && state.graph.made == was.graph.made,
                       "a state is the same");
                for (std::size_t t = 0; t < was.graph.count; ++t)
                    demand(same(state.graph.tensors[t], was.graph.tensors[t]), "its tensors are");
                if (!was.inside) continue;
                const Block &block = state.blocks[0];
                demand(block.steps == was.blocks[0].steps && block.loads == 2 && block.setting.loop == 4, "its block is");
                demand(std::equal(block.body.begin(), block.body.begin() + block.steps, was.blocks[0].body.begin()), "its steps are");
                demand(state.block.count == was.block.count && state.block.last == was.block.last && state.block.bytes == was.block.bytes,
                       "what its block has is");
                for (std::size_t t = 0; t < was.block.count; ++t) demand(same(state.block.tiles[t], was.block.tiles[t]), "its tiles are");
            }
            demand(part.bytes() == 0, "memory is counted");
        }
        demand(i == many, "no state is lost");
    }
}

// Of a graph all that sets it apart.
std::vector<int> said(const Found &found) {
    std::vector<int> all(found.outputs.begin(), found.outputs.end());
    const auto step = [&](const Step &s) { all.insert(all.end(), {static_cast<int>(s.kind), s.arg, s.a, s.b}); };
    std::ranges::for_each(found.nodes, step);
    for (const Block &block : found.blocks) {
        all.insert(all.end(), block.setting.grid.begin(), block.setting.grid.end());
        all.push_back(block.setting.loop);
        std::for_each_n(block.body.begin(), block.steps, step);
    }
    return all;
}

// Ranks of which the first gets all work, and gives it away when it is asked, find the same.
void ranks(const Roots &roots, const Share &alone, std::uint64_t states) {
    for (const Order order : {Order::dfs, Order::bfs})
        for (const int many : {1, 3}) {
            Control control;
            SharedAnswers shared;
            const Asking asking;
            std::vector<std::unique_ptr<Ranked>> all;
            std::vector<std::thread> threads;
            std::vector<Counts> counts(static_cast<std::size_t>(many));
            for (int rank = 0; rank < many; ++rank)
                all.push_back(std::make_unique<Ranked>(roots, asking, shared, control,
                                                       Team{.order = order, .threads = 2, .ranks = many, .rank = rank}));
            for (std::size_t rank = 0; rank < all.size(); ++rank)
                threads.emplace_back([&, rank] {
                    for (const Counts &each : all[rank]->run()) counts[rank] += each;
                });
            Ranked &first = *all.front();
            std::size_t next = 0, given = 0;
            const auto idle = [](const auto &rank) { return rank->idle(); };
            while (next < first.items() || !std::ranges::all_of(all, idle)) {
                if (next < first.items() && first.waiting() < 2) first.offer(next++);
                for (std::size_t rank = 1; rank < all.size(); ++rank)
                    if (all[rank]->idle())
                        if (const std::string task = first.give(); !task.empty()) all[rank]->receive(task), ++given;
                for (const auto &rank : all) first.tell(rank->found(false));
            }
            for (const auto &rank : all) rank->end();
            for (std::thread &thread : threads) thread.join();
            for (const auto &rank : all) first.tell(rank->found(true));
            Counts sum;
            for (const Counts &each : counts) sum += each;
            demand(sum.states == states, "ranks meet every state once");
            demand(many == 1 || given > 0, "the first rank gives work away");
            const Ranked::Graphs found = first.conclude();
            demand(std::ranges::equal(found, alone.found, {}, [](const auto &one) { return std::pair(one.first, said(one.second)); },
                                      [](const auto &one) { return std::pair(one.first, said(one.second)); }),
                   "ranks find the same graphs in the same order");
        }
}

} // namespace

int main() {
    frontiers();
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
    SharedAnswers shared;
    ranks(roots, share_out(roots, {}, shared, control, {}), states);
    demand(found > 0, "graphs are found");
    demand(taken > 0, "idle threads take open work");
    std::printf("%llu states, %zu graphs, %llu times work was taken\n", static_cast<unsigned long long>(states), found,
                static_cast<unsigned long long>(taken));
}
