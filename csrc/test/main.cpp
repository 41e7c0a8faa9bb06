// Runs without Python, so that sanitizers see nothing but ours. Expected counts are those of an independent prototype.

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "../kernels.hpp"
#include "programs.hpp"

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
    listing.run([&](const Plan &plan) {
        std::uint64_t ways = 1;
        for (const Choice &choice : plan) ways *= choice.chosen().implementations.size();
        counted.graphs += ways;
        ++counted.plans;
    });
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

void long_listings() {
    check_count(count("blk", Shapes::oriented, 11, 4).graphs, 5088714, "blk at 11, kernels 4");
    check_count(count("mlpd", Shapes::oriented, 11, 4).graphs, 258177, "mlpd at 11, kernels 4");
    check_count(count("qkvlora", Shapes::oriented, 11, 4).graphs, 480272, "qkvlora at 11, kernels 4");
}

} // namespace

int main(int argc, char **) {
    tables();
    limits_of_tables();
    listings();
    if (argc > 1) long_listings();
    std::printf("%s\n", failures ? "some checks failed" : "all checks passed");
    return failures ? EXIT_FAILURE : EXIT_SUCCESS;
}
