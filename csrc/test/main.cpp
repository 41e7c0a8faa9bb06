// Runs without Python, so that sanitizers see nothing but ours. Expected counts are those of an independent prototype.

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "../bundles.hpp"
#include "../closure.hpp"
#include "../engine.hpp"
#include "../ledger.hpp"
#include "audit.hpp"
#include "programs.hpp"
#include "unordered.hpp"

namespace {

using namespace tilesmith;

int failures = 0;

void check(bool good, const std::string &what) {
    if (good) return;
    ++failures;
    std::printf("FAILED: %s\n", what.c_str());
}

void check_count(std::uint64_t got, std::uint64_t expected, const std::string &what) {
    check(got == expected, what + ": " + std::to_string(got) + ", expected " + std::to_string(expected));
}

void tables() {
    struct Expected {
        const char *program;
        std::size_t classes, rows;
    };
    for (const Expected &e : std::vector<Expected>{
             {"rms", 26, 56},     {"rms2", 18, 34},    {"mlp", 18, 26},     {"lora", 33, 57},   {"ntrans", 61, 141},
             {"attn", 20, 33},    {"qkn", 28, 49},     {"mlpd", 79, 227},   {"blk", 83, 204},   {"qkvlora", 97, 290},
             {"mlpres", 57, 145}, {"blkres", 84, 205}, {"sq2", 12, 13},     {"sq2lin", 11, 12}, {"nsattn", 205, 690},
             {"omlpres", 246, 822}, {"layer", 948, 5181}, {"full", 1887, 11890}}) {
        const Table table = build_table(test::program(e.program), {});
        const std::string name = std::string("table of ") + e.program;
        check(table.incomplete.empty(), name + " is complete");
        check_count(table.classes(), e.classes, name + ", classes");
        check_count(table.rows.size(), e.rows, name + ", rows");
        for (const Class c : table.nodes) check(c != kNoClass, name + " has every value that the program computes");
        for (const Row &row : table.rows) check(table.probe(row.rule, row.a, row.b) == row.result, name + " finds its rows");
    }
}

void limits_of_tables() {
    TableLimits few;
    few.classes = 10;
    const Program program = test::program("blk");
    check(!build_table(program, few).incomplete.empty(), "a table past its limit says so");
    TableLimits late;
    late.stopped = [] { return true; };
    check(!build_table(test::program("full"), late).incomplete.empty(), "a table past its time says so");
}

void audits() {
    for (const char *name : {"rms", "rms2", "mlp", "lora", "ntrans", "qkn", "mlpres", "blkres", "qkvlora", "sq2", "nsattn", "omlpres"})
        for (const unsigned parts : {unsigned{kInBlock | kInLoop}, unsigned{kInBlock | kInLoop | kInGrid}}) {
            const Program program = test::program(name, parts);
            const Table table = build_table(program, {});
            const test::Audit audit = test::audit(program, table, 7);
            const std::string what = std::string("audit of ") + name;
            check(audit.rows * 10 >= table.rows.size(), what + " reaches its rows");
            check(audit.wrong == 0, what + ": " + std::to_string(audit.wrong) + " wrong rows, first " + audit.first);
        }
}

struct Counted {
    std::uint64_t graphs = 0, plans = 0;
    Stop stop = Stop::exhausted;
};

Counted count(const char *name, Shapes shapes, int operators, int kernels, unsigned parts = kInBlock | kInLoop,
              int inputs = 4) {
    const Program program = test::program(name, parts);
    const Table table = build_table(program, {});
    const Space space(program, table, {.shapes = shapes});
    Control control;
    Listing listing(space, {.block = {.operators = operators, .stores = 2}, .inputs = inputs, .kernels = kernels}, control);
    Counted counted;
    listing.run();
    counted.graphs = listing.graphs();
    counted.plans = listing.plans().size();
    counted.stop = control.reason();
    return counted;
}

void listings() {
    struct Expected {
        const char *program;
        int operators, kernels;
        std::uint64_t oriented, free;
        unsigned parts = kInBlock | kInLoop;
        int inputs = 4;
    };
    constexpr unsigned split = kInBlock | kInLoop | kInGrid;
    // With free views a weight's own factor may also scale its rows: rms and qkvlora have more graphs then; and what a
    // split leaves may be summed in the block: attn has.
    for (const Expected &e : std::vector<Expected>{{"rms", 9, 1, 4, 6},
                                                   {"rms", 11, 1, 6, 10},
                                                   {"rms2", 11, 1, 5, 5},
                                                   {"mlp", 11, 1, 2, 2},
                                                   {"lora", 11, 1, 13, 13},
                                                   {"ntrans", 9, 1, 4, 4},
                                                   {"ntrans", 11, 1, 6, 6},
                                                   {"ntransp", 14, 1, 1, 1},
                                                   {"attn", 11, 1, 4, 4},
                                                   {"qkn", 11, 1, 4, 4},
                                                   {"attn", 11, 2, 68, 86, split},
                                                   {"mlpres", 16, 1, 22, 22},
                                                   {"blkres", 18, 1, 70, 70, kInBlock | kInLoop, 5},
                                                   {"blkres", 11, 2, 296, 296},
                                                   {"blkres", 11, 3, 18003, 18003},
                                                   {"sq2", 9, 1, 2, 2},
                                                   {"blk", 11, 2, 641, 641},
                                                   {"blk", 11, 3, 44341, 44341},
                                                   {"mlpd", 11, 3, 15206, 15206},
                                                   {"qkvlora", 11, 3, 18392, 66323}}) {
        const std::string what = std::string(e.program) + " at " + std::to_string(e.operators) + ", kernels " +
                                 std::to_string(e.kernels);
        check_count(count(e.program, Shapes::oriented, e.operators, e.kernels, e.parts, e.inputs).graphs, e.oriented, what);
        check_count(count(e.program, Shapes::free, e.operators, e.kernels, e.parts, e.inputs).graphs, e.free, what + ", free views");
    }
}

// What a listing found, apart from where it lies in memory.
struct Listed {
    std::vector<std::uint64_t> plans;
    std::uint64_t graphs = 0, states = 0;
    bool full = false;
};

Listed listed(const Space &space, const KernelLimits &limits, const Team &team) {
    Control control;
    Listing listing(space, limits, control, team);
    listing.run();
    Listed made;
    listing.plans().each([&](Plan plan) {
        made.plans.push_back(plan.size());
        for (const Choice &choice : plan) {
            made.plans.push_back(choice.signature);
            for (const Tensor input : choice.kernels->inputs) made.plans.push_back(input);
        }
    });
    made.graphs = listing.graphs();
    made.full = listing.full();
    for (const Worker &worker : listing.workers()) made.states += worker.counters.states;
    return made;
}

// Whoever searches in whichever order, the programs and their order are the same, and so are the states. The first so
// many are those of one worker.
void teams() {
    for (const auto &[name, kernels] : std::vector<std::pair<const char *, int>>{{"blk", 3}, {"lora", 2}, {"nsattn", 3}, {"rms", 1}}) {
        const Program program = test::program(name);
        const Table table = build_table(program, {});
        const Space space(program, table, {});
        const KernelLimits limits{.block = {.operators = 9, .stores = 2}, .inputs = 4, .kernels = kernels};
        const Listed alone = listed(space, limits, {});
        check(alone.graphs > 0, std::string("a listing of ") + name);
        for (const Order order : {Order::dfs, Order::bfs}) {
            const std::uint64_t few = alone.graphs / 3 + 1;
            const Listed first = listed(space, limits, {.order = order, .graphs = few});
            check(first.full && first.graphs >= few, std::string("the first graphs of ") + name);
            for (const Sharing sharing : {Sharing::shared, Sharing::dealt})
                for (const int threads : {1, 2, 3, 5, 8})
                    for (const std::size_t frontier : {std::size_t{1} << 26, std::size_t{20000}}) {
                        if (order == Order::dfs && frontier == 20000) continue;
                        Team team{.sharing = sharing, .order = order, .threads = threads, .frontier_bytes = frontier};
                        const std::string what = std::to_string(threads) + (order == Order::bfs ? " breadth-first" : " depth-first") +
                                                 (sharing == Sharing::dealt ? " dealt" : " sharing") + " workers on " + name;
                        team.timeline = threads == 3;
                        const Listed found = listed(space, limits, team);
                        check(found.plans == alone.plans, what);
                        check_count(found.graphs, alone.graphs, what);
                        check_count(found.states, alone.states, what + ", states");
                        team.graphs = few;
                        check(listed(space, limits, team).plans == first.plans, what + ", the first graphs");
                    }
        }
    }
}

// Neither the cache of block searches nor the order of kernels loses a program or finds one twice.
void kernel_level() {
    struct Case {
        const char *program;
        int operators, kernels, inputs;
        unsigned parts = kInBlock | kInLoop;
    };
    for (const Case &c : std::vector<Case>{{"rms2", 9, 3, 3},
                                           {"mlp", 7, 3, 3},
                                           {"attn", 7, 3, 3},
                                           {"attn", 8, 2, 3, kInBlock | kInLoop | kInGrid},
                                           {"lora", 6, 3, 3},
                                           {"ntrans", 7, 2, 3}})
        for (const bool as_used : {false, true}) {
            const Program program = test::program(c.program, c.parts);
            const Table table = build_table(program, {});
            const Space space(program, table, {.fused_accumulators = as_used});
            KernelLimits limits{.block = {.operators = c.operators, .stores = 2}, .inputs = c.inputs, .kernels = c.kernels};
            limits.block.whole = limits.block.unscaled = as_used;
            const test::Programs all = test::unordered(space, limits), found = test::listed(space, limits);
            check(!all.empty() && all == found, std::string("kernels of ") + c.program + " without cache and order: " +
                                                    std::to_string(all.size()) + ", listed " + std::to_string(found.size()));
        }
}

// The table reaches every value of the program from its inputs by its own rows.
void forward_closures() {
    for (const char *name : {"rms", "rms2", "mlp", "lora", "ntrans", "attn", "qkn", "mlpd", "blk", "qkvlora", "mlpres", "blkres",
                             "sq2", "nsattn", "omlpres", "layer", "full"})
        for (const unsigned parts : {unsigned{kInBlock | kInLoop}, unsigned{kInBlock | kInLoop | kInGrid}}) {
            const Program program = test::program(name, parts);
            const Table table = build_table(program, {});
            std::vector<bool> reached(table.classes());
            for (const Class input : table.inputs)
                if (input != kNoClass) reached[input] = true;
            for (bool more = true; more;) {
                more = false;
                for (const Row &row : table.rows) {
                    if (reached[row.result] || !reached[row.a] || (row.rule < Rule::apply && !reached[row.b])) continue;
                    reached[row.result] = more = true;
                }
            }
            for (const Class c : table.nodes) check(c != kNoClass && reached[c], std::string("the table of ") + name + " reaches its root");
            if (table.classes() > 500) break; // with three parts such tables take seconds
        }
}

// Ranks that are offered work piece by piece, give some away and make block searches for each other find what one thread
// finds, and make no search twice.
void served() {
    const Program program = test::program("blk");
    const Table table = build_table(program, {});
    const Space space(program, table, {});
    const KernelLimits limits{.block = {.operators = 9, .stores = 2}, .inputs = 4, .kernels = 3};
    const Listed alone = listed(space, limits, {});
    Control serial_control;
    Listing serial(space, limits, serial_control, {});
    serial.run();
    for (const Order order : {Order::dfs, Order::bfs})
        for (const int ranks : {1, 2, 3}) {
            Control control;
            std::vector<std::unique_ptr<Listing>> all;
            std::vector<std::thread> threads;
            for (int rank = 0; rank < ranks; ++rank)
                all.push_back(std::make_unique<Listing>(
                    space, limits, control, Team{.order = order, .threads = rank ? 1 : 2, .ranks = ranks, .rank = rank}));
            for (const auto &listing : all) threads.emplace_back([&listing] { listing->run(); });
            Listing &first = *all.front();
            std::string split;
            while ((split = first.begin()).empty()) std::this_thread::yield();
            Ledger ledger;
            const auto others = [&](const Listing &but, const auto &act) {
                for (const auto &listing : all)
                    if (listing.get() != &but) act(*listing);
            };
            const auto hear = [&](Listing &listing, bool everything) {
                const std::string found = listing.found(everything), made = listing.fresh();
                if (!made.empty()) others(listing, [&](Listing &other) { other.learn(made); });
                Reader reader(found);
                while (reader.more()) ledger.add(read_chain(reader, first.memo()));
            };
            others(first, [&](Listing &other) { other.begin(split); });
            std::size_t next = 0;
            const auto idle = [](const auto &listing) { return listing->idle(); };
            while (next < first.items() || !std::ranges::all_of(all, idle))
                for (const auto &listing : all) {
                    if (next < first.items() && listing->waiting() < 1) listing->offer(next++);
                    const std::vector<std::string> wanted = listing->wanted();
                    for (std::size_t rank = 0; rank < wanted.size(); ++rank)
                        if (!wanted[rank].empty()) all[rank]->ask(wanted[rank]);
                    if (const std::string given = listing->give(); !given.empty())
                        all[(next + given.size()) % all.size()]->receive(given);
                    hear(*listing, false);
                }
            for (const auto &listing : all) listing->end();
            for (std::thread &thread : threads) thread.join();
            for (const auto &listing : all) hear(*listing, true);
            std::uint64_t graphs = 0, states = 0;
            std::vector<std::uint64_t> plans;
            ledger.plans(0, order, graphs).each([&](Plan plan) {
                plans.push_back(plan.size());
                for (const Choice &choice : plan) {
                    plans.push_back(choice.signature);
                    for (const Tensor input : choice.kernels->inputs) plans.push_back(input);
                }
            });
            for (const auto &listing : all)
                for (const Worker &worker : listing->workers()) states += worker.counters.states;
            const std::string what = " of " + std::to_string(ranks) + " ranks";
            check_count(graphs, alone.graphs, "graphs" + what);
            check_count(states, serial.workers()[0].counters.states, "states" + what);
            check(plans == alone.plans, "programs" + what);
        }
}

// Closures of the prototype: tensors, sets of them, and what kernels lead from sets to.
void closures() {
    struct Expected {
        const char *program;
        std::size_t tensors;
        std::uint64_t subsets, edges;
    };
    for (const Expected &e : std::vector<Expected>{{"mlpres", 19, 1159, 802}, {"omlpres", 52, 23478, 4329}}) {
        const Program program = test::program(e.program);
        const Table table = build_table(program, {});
        const Space space(program, table, {.shapes = Shapes::oriented});
        Control control;
        Closure closure(space, {.block = {}, .inputs = 3, .filtered = false}, control, {});
        closure.run();
        std::uint64_t edges = 0;
        for (const Kernels &kernels : closure.kernels())
            for (const Signature &signature : kernels.signatures) edges += !space.target(class_of(signature.outputs[0]));
        const std::string what = std::string("closure of ") + e.program;
        check_count(closure.tensors().size(), e.tensors, what + ", tensors");
        check_count(closure.counted().subsets, e.subsets, what + ", subsets");
        check_count(edges, e.edges, what + ", edges");
    }
}

std::vector<std::pair<std::vector<Tensor>, std::array<Tensor, kMaxStores>>> edges_of(const Space &space, bool filtered,
                                                                                     int inputs, int threads) {
    Control control;
    ClosureLimits limits{.block = {}, .inputs = inputs, .filtered = filtered};
    limits.block.connected = limits.block.unscaled = limits.block.whole = true;
    Closure closure(space, limits, control, {.sharing = threads % 2 ? Sharing::shared : Sharing::dealt, .threads = threads});
    closure.run();
    std::vector<std::pair<std::vector<Tensor>, std::array<Tensor, kMaxStores>>> edges;
    for (const Kernels &kernels : closure.kernels())
        for (const Signature &signature : kernels.signatures) edges.emplace_back(kernels.inputs, signature.outputs);
    return edges;
}

// Ranks that are offered sets in turn, and tell each other what they found, come to the closure that one comes to.
void closures_of_ranks() {
    const Program program = test::program("blkres");
    const Table table = build_table(program, {});
    const Space space(program, table, {.fused_accumulators = true});
    const ClosureLimits limits{.block = {}, .inputs = 3, .filtered = true};
    const auto said = [](const Closure &closure) {
        std::vector<std::uint64_t> all = closure.tensors();
        for (const Kernels &kernels : closure.kernels()) {
            all.insert(all.end(), kernels.inputs.begin(), kernels.inputs.end());
            for (const Signature &made : kernels.signatures) all.insert(all.end(), {made.outputs[0], made.implementations.size()});
        }
        return all;
    };
    Control alone_control;
    Closure alone(space, limits, alone_control, {});
    alone.run();
    for (const int ranks : {1, 2, 3}) {
        Control control;
        std::vector<std::unique_ptr<Closure>> all;
        std::vector<std::thread> threads;
        std::atomic<int> left{ranks};
        for (int rank = 0; rank < ranks; ++rank)
            all.push_back(std::make_unique<Closure>(space, limits, control, Team{.threads = 2 - rank % 2, .ranks = ranks, .rank = rank}));
        for (const auto &closure : all)
            threads.emplace_back([&closure, &left] {
                closure->run();
                --left;
            });
        std::string told;
        for (std::size_t next = 0; left > 0; std::this_thread::yield())
            for (const auto &closure : all) {
                if (closure->waiting() < 2) closure->offer(next++);
                const std::string made = closure->fresh();
                told += made;
                for (const auto &other : all)
                    if (other != closure && !made.empty()) other->learn(made);
            }
        for (std::thread &thread : threads) thread.join();
        // What was made since it was last asked.
        for (const auto &closure : all) told += closure->fresh();
        const std::string what = " of " + std::to_string(ranks) + " ranks";
        std::uint64_t states = 0;
        for (const auto &closure : all) {
            check(said(*closure) == said(alone), "closure" + what);
            for (const Worker &worker : closure->workers()) states += worker.counters.states;
        }
        check_count(states, alone.workers()[0].counters.states, "states" + what);
        Control later;
        Closure again(space, limits, later, Team{.ranks = 1});
        again.learn(told);
        again.end();
        again.run();
        check(said(again) == said(alone) && !later.stopped(), "what was told" + what);
    }
    Closure nothing(space, limits, alone_control, Team{.ranks = 1});
    nothing.end();
    nothing.run();
    check(alone_control.reason() == Stop::interrupted && nothing.kernels().empty(), "what was not told");
}

// Sets that are left out because no chain of operators joins them have no kernel; workers do not change the result.
void filters() {
    for (const char *name : {"rms", "lora", "ntransp", "mlpres", "blkres", "qkvlora", "nsattn"}) {
        const Program program = test::program(name);
        const Table table = build_table(program, {});
        const Space space(program, table, {.fused_accumulators = true});
        const int inputs = std::string(name) == "nsattn" ? 3 : 4;
        const auto found = edges_of(space, true, inputs, 1);
        auto all = edges_of(space, false, inputs, 1);
        check(found == edges_of(space, true, inputs, 3), std::string("three workers on ") + name);
        check(found == edges_of(space, true, inputs, 2), std::string("two workers with work dealt out on ") + name);
        auto sorted = found;
        std::ranges::sort(sorted);
        std::ranges::sort(all);
        check(!found.empty() && sorted == all, std::string("filter on ") + name);
    }
}

Request request(const char *name, const std::string &bases) {
    static const std::map<char, std::int64_t> extents{{'B', 2048}, {'S', 2048}, {'M', 4096},  {'K', 4096}, {'D', 128},
                                                      {'E', 128},  {'F', 4096}, {'N', 11008}, {'R', 16}};
    Request request;
    request.program = test::program(name);
    request.sizes.extents.push_back(1);
    for (const char base : bases) request.sizes.extents.push_back(extents.at(base));
    request.sizes.input_bytes.assign(request.program.inputs.size(), 2);
    request.kernels.block.whole = request.kernels.block.unscaled = true;
    request.splits = {1};
    return request;
}

// The cheapest derivation over the closure is never dearer than the cheapest program of so many kernels, and is as cheap
// where those are enough.
void derivations() {
    struct Expected {
        const char *program, *bases;
        int kernels;
    };
    for (const Expected &e : std::vector<Expected>{{"rms", "BKN", 3},
                                                   {"lora", "BKNR", 3},
                                                   {"attn", "BDSE", 3},
                                                   {"mlpd", "BMNE", 3},
                                                   {"mlpres", "BMN", 4},
                                                   {"blkres", "BMDSE", 3},
                                                   {"qkvlora", "BKNR", 3}}) {
        Engine listing([&] {
            Request made = request(e.program, e.bases);
            made.kernels.kernels = e.kernels;
            return made;
        }());
        Engine closing([&] {
            Request made = request(e.program, e.bases);
            made.closure = true;
            return made;
        }());
        const Result &listed = listing.run(), &closed = closing.run();
        const std::string what = std::string("derivation of ") + e.program;
        check(!listed.ranked.empty() && !closed.ranked.empty(), what + " exists");
        if (listed.ranked.empty() || closed.ranked.empty()) continue;
        const double best = listed.ranked[0].seconds, derived = closed.ranked[0].seconds;
        check(derived <= best * (1 + 1e-12), what + ": " + std::to_string(derived * 1e6) + " us, not " + std::to_string(best * 1e6));
    }
}

// What ends a search is told, and what was found until then is kept.
void budgets() {
    Request graphs = request("blkres", "BMDSE");
    graphs.kernels.kernels = 3;
    graphs.team.graphs = 100;
    Engine few(graphs);
    check(few.run().stop == Stop::graphs && few.result().graphs >= 100 && few.result().graphs < 18003, "a limit of graphs");

    Request seconds = request("qkvlora", "BKNR");
    seconds.kernels.kernels = 5;
    seconds.seconds = 0.05;
    Engine late(seconds);
    check(late.run().stop == Stop::seconds && late.result().search_s < 5, "a limit of seconds");

    Request any = request("qkvlora", "BKNR");
    Engine stopped(any);
    stopped.control().interrupt();
    check(stopped.run().stop == Stop::interrupted, "an interrupt");

    Request deep = request("full", "BMDSEN");
    deep.table.classes = 100;
    Engine large(deep);
    check(large.run().stop == Stop::incomplete && !large.result().incomplete.empty(), "a table past its limit");

    for (const auto spoil : {+[](Program &p) { p.nodes[1].a = 99; }, +[](Program &p) { p.outputs = {-1}; },
                             +[](Program &p) { p.inputs[0].dims = 0x0101; }, +[](Program &p) { p.parts[1] = 0; },
                             +[](Program &p) { p.nodes[2].term = static_cast<Term>(77); }, +[](Program &p) { p.outputs.clear(); }}) {
        Request broken = request("rms", "BKN");
        spoil(broken.program);
        bool refused = false;
        try {
            Engine(broken).run();
        } catch (const std::invalid_argument &) {
            refused = true;
        }
        check(refused, "a program that is none");
    }
}

void long_listings() {
    check_count(count("blk", Shapes::oriented, 11, 4).graphs, 5088714, "blk at 11, kernels 4");
    check_count(count("mlpd", Shapes::oriented, 11, 4).graphs, 258177, "mlpd at 11, kernels 4");
    check_count(count("qkvlora", Shapes::oriented, 11, 4).graphs, 480272, "qkvlora at 11, kernels 4");
}

} // namespace

// From sets that are no bundle the block search finds nothing; and what is a bundle does not depend on when that is found.
void bundles() {
    struct Chosen {
        const char *program;
        bool connected;
    };
    for (const auto &[name, connected] : std::vector<Chosen>{{"blk", false}, {"mlpres", true}, {"lora", false}, {"qkn", false}}) {
        const Program program = test::program(name, kInBlock | kInLoop | kInGrid);
        const Table table = build_table(program, {});
        const Space space(program, table, {.fused_accumulators = true});
        const BlockLimits limits{.operators = 8, .connected = connected, .unscaled = true, .whole = true};
        std::vector<Tensor> tensors = program_inputs(space);
        for (std::size_t c = 0; c < space.classes() && tensors.size() < 18; ++c)
            if (const auto cls = static_cast<Class>(c); space.live(cls) && may_be_stored(space, limits, Goal::between, cls) &&
                                                        std::ranges::find(tensors, tensor(cls, 0)) == tensors.end())
                tensors.push_back(tensor(cls, 0));
        Bundles known(space, limits, 4), late(space, limits, 4, 0);
        for (const Tensor t : tensors) {
            known.meet(t);
            late.meet(t);
        }
        const auto last = static_cast<Bundles::Id>(tensors.size() - 1);
        check(known.knows(last) && !late.knows(last), std::string("steps of bundles of ") + name);
        while (!late.knows(last)) late.afford(1);
        Control control;
        BlockSearch block(space, limits, control);
        std::uint64_t sets = 0, used = 0, lost = 0, differ = 0, listed = 0;
        std::vector<Tensor> inputs;
        std::vector<std::uint64_t> hashes;
        const auto choose = [&](const auto &self, std::size_t from) -> void {
            for (const bool ends : {false, true}) {
                if (inputs.empty()) break;
                const bool is = known.any(hashes, ends);
                std::vector<Tensor> sorted = inputs;
                std::ranges::sort(sorted);
                ++sets;
                used += is;
                listed += is && ends;
                differ += is != late.any(hashes, ends);
                if (!is) lost += block.run(sorted, ends ? Goal::last : Goal::between).signatures.size();
            }
            for (std::size_t i = from; inputs.size() < 4 && i < tensors.size(); ++i) {
                inputs.push_back(tensors[i]);
                hashes.push_back(Memo::hash_of(tensors[i]));
                self(self, i + 1);
                inputs.pop_back();
                hashes.pop_back();
            }
        };
        choose(choose, 0);
        std::set<std::uint32_t> all;
        for (Bundles::Id id = 0; id <= last; ++id) all.insert(known.last_with(id).begin(), known.last_with(id).end());
        const std::string what = std::string("bundles of ") + name;
        check(used > 0 && used * 2 < sets, what + " are some of all sets");
        check_count(lost, 0, what + ": graphs of what is none");
        check_count(differ, 0, what + ": found later");
        check_count(all.size(), listed, what + ", for a last kernel");
    }
}

int main(int argc, char **) {
    tables();
    limits_of_tables();
    audits();
    listings();
    teams();
    served();
    kernel_level();
    forward_closures();
    bundles();
    closures();
    closures_of_ranks();
    filters();
    derivations();
    budgets();
    if (argc > 1) long_listings();
    std::printf("%s\n", failures ? "some checks failed" : "all checks passed");
    return failures ? EXIT_FAILURE : EXIT_SUCCESS;
}
