// The block search finds what brute force finds. With an argument, as far as brute force goes.

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <set>
#include <string>
#include <vector>

#include "../block.hpp"
#include "../kernels.hpp"
#include "brute.hpp"
#include "programs.hpp"

namespace {

using namespace tilesmith;

// Programs whose dimensions are known by their names.
class Named : public test::Build {
  public:
    Named(const std::string &bases, const std::string &looped) : Build(bases, looped) { program.named = true; }

    int product(int a, int b, char over) { return summing(matmul(a, b), over); }
    int total(int a, char over) { return summing(row_sum(a), over); }

  private:
    int summing(int node, char over) {
        program.nodes.back().over = bit(base(over));
        return node;
    }
};

// One operator for the norm, and its primitives as functions of the program.
int normed(Named &b, int x) {
    const int made = b.apply({.fn = Fn::rms_norm, .id = 0, .eps = 1, .base = b.base('K')}, x);
    b.program.functions.push_back({.fn = Fn::square});
    b.program.functions.push_back({.fn = Fn::scale, .id = 0});
    b.program.functions.push_back({.fn = Fn::shift, .id = 1});
    b.program.functions.push_back({.fn = Fn::sqrt});
    return made;
}

Program published(const std::string &name) {
    if (name == "rmsnorm_linear") {
        Named b("BKN", "K");
        const int x = b.input("X", "BK"), w = b.input("W", "KN");
        return b.done(b.product(normed(b, x), w, 'K'));
    }
    if (name == "gated_mlp") {
        Named b("BKN", "K");
        const int x = b.input("X", "BK"), w = b.input("W", "KN"), v = b.input("V", "KN");
        return b.done(b.mul(b.silu(b.product(x, w, 'K')), b.product(x, v, 'K')));
    }
    if (name == "lora") {
        Named b("BKNR", "K");
        const int x = b.input("X", "BK"), w = b.input("W", "KN"), a = b.input("A", "KR"), c = b.input("C", "RN");
        return b.done(b.add(b.product(x, w, 'K'), b.product(b.product(x, a, 'K'), c, 'R')));
    }
    if (name == "attention") {
        Named b("BDSE", "S");
        const int q = b.input("Q", "BD"), k = b.input("K", "DS"), v = b.input("V", "SE");
        const int e = b.exp(b.product(q, k, 'D'));
        return b.done(b.product(b.div(e, b.total(e, 'S')), v, 'S'));
    }
    Named b("BK", "K");
    const int x = b.input("X", "BK"), h = b.input("H", "BK"), a = b.input("A", "BK");
    const int inner = normed(b, h);
    return b.done(b.apply(b.program.functions[0], b.add(x, b.mul(a, b.add(inner, x)))));
}

// What the block search finds, as brute force writes it.
std::set<std::string> searched(const Program &program, int operators) {
    const Table table = build_table(program, {});
    const Space space(program, table, {.fused_accumulators = true});
    Control control;
    BlockLimits limits{.operators = operators, .stores = 1};
    limits.unscaled = limits.whole = true;
    const Kernels kernels = BlockSearch(space, limits, control).run(program_inputs(space), Goal::last);
    std::set<std::string> found;
    for (const Signature &signature : kernels.signatures)
        for (const Implementation &made : signature.implementations) {
            std::vector<std::string> values;
            for (const Tensor t : kernels.inputs) {
                int input = 0;
                while (table.inputs[static_cast<std::size_t>(input)] != class_of(t)) ++input;
                values.push_back(test::written_input(input));
            }
            for (std::size_t i = 0; i < made.steps; ++i) {
                const Step &step = kernels.steps[made.first_step + i];
                const std::string &x = values[step.a];
                const auto over = [&] { return space.sets()[step.arg]; };
                const auto join = [&](Term term, Bases sum) { return test::written_pair(term, sum, x, values[step.b]); };
                std::string value;
                switch (step.kind) {
                case StepKind::add: value = join(Term::add, 0); break;
                case StepKind::sub: value = join(Term::sub, 0); break;
                case StepKind::mul: value = join(Term::mul, 0); break;
                case StepKind::div: value = join(Term::div, 0); break;
                case StepKind::matmul: value = join(Term::matmul, over()); break;
                case StepKind::apply: value = test::written_apply(step.arg, x); break;
                case StepKind::sum: value = test::written_sum(false, over(), x); break;
                case StepKind::accumulate: value = test::written_sum(true, 0, x); break;
                case StepKind::accumulate_sum: value = test::written_sum(true, over(), x); break;
                }
                values.push_back(value);
            }
            found.insert(test::written_graph(made.walk.loop, values[made.stores[0]]));
        }
    return found;
}

struct Case {
    const char *program;
    int operators;
    std::size_t graphs;
};

// Whether both find the same, so many graphs.
bool compared(const Case &c) {
    const Program program = published(c.program);
    const auto began = std::chrono::steady_clock::now();
    const test::Brute forced = test::brute(program, {.operators = c.operators});
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - began;
    const std::set<std::string> found = searched(program, c.operators);
    std::printf("%s at %d: %zu graphs, by the search %zu; %.1f s, %llu states, %llu values, %zu MB%s\n", c.program, c.operators,
                forced.graphs.size(), found.size(), took.count(), static_cast<unsigned long long>(forced.states),
                static_cast<unsigned long long>(forced.values), forced.bytes >> 20, forced.complete ? "" : ", not finished");
    std::fflush(stdout);
    for (const std::string &graph : forced.graphs)
        if (!found.contains(graph)) std::printf("  lost: %s\n", graph.c_str());
    for (const std::string &graph : found)
        if (!forced.graphs.contains(graph)) std::printf("  made up: %s\n", graph.c_str());
    return forced.complete && forced.graphs == found && found.size() == c.graphs;
}

// What ends brute force early is told.
bool limited() {
    const Program program = published("gated_mlp");
    return !test::brute(program, {.operators = 8, .bytes = 1}).complete && !test::brute(program, {.operators = 8, .seconds = 0}).complete;
}

} // namespace

int main(int argc, char **) {
    // The counts of the first ones are also those of the enumerator in Python.
    std::vector<Case> cases{{"rmsnorm_linear", 3, 0}, {"rmsnorm_linear", 4, 1}, {"rmsnorm_linear", 5, 1}, {"rmsnorm_linear", 6, 1},
                            {"gated_mlp", 6, 0},      {"gated_mlp", 7, 1},      {"lora", 7, 1},           {"lora", 8, 4},
                            {"lora", 9, 6},           {"attention", 7, 0},      {"attention", 8, 2},      {"norm_transformer", 7, 0}};
    const std::vector<Case> large{{"gated_mlp", 8, 1}, {"gated_mlp", 9, 2},      {"lora", 10, 9},           {"attention", 9, 3},
                                  {"rmsnorm_linear", 7, 1}, {"rmsnorm_linear", 8, 1}, {"norm_transformer", 8, 1}, {"norm_transformer", 9, 4}};
    if (argc > 1) cases.insert(cases.end(), large.begin(), large.end());
    bool good = limited();
    for (const Case &c : cases) good = compared(c) && good;
    std::printf("%s\n", good ? "all checks passed" : "some checks failed");
    return good ? EXIT_SUCCESS : EXIT_FAILURE;
}
