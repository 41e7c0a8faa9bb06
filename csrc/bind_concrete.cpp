// What Python sees of the concrete space and of its oracles.

#include <nanobind/nanobind.h>
#include <nanobind/stl/array.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <stdexcept>
#include <string_view>
#include <tuple>

#include "bind_served.hpp"
#include "concrete_ranks.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace tilesmith {
namespace {

using namespace concrete;

constexpr std::array<std::string_view, 9> kFunctions{"exp",   "square",     "sqrt",     "rsqrt", "reciprocal",
                                                     "scale", "shift",      "rms_norm", "opaque"};
constexpr std::array<std::string_view, 6> kTerms{"input", "apply", "add", "sub", "mul", "div"};
constexpr std::array<std::string_view, 12> kKinds{"matmul", "matmul_transposed", "add",        "sub",
                                                  "mul",    "div",               "apply",      "norm",
                                                  "sum",    "accumulate",        "accumulate_sum", "accumulate_root"};
constexpr std::array<std::string_view, 6> kExpressed{"add", "sub", "mul", "div", "function", "sum"};

template <std::size_t n> std::size_t place(const std::array<std::string_view, n> &names, std::string_view name) {
    const auto found = std::ranges::find(names, name);
    if (found == names.end()) throw std::invalid_argument("there is no " + std::string(name));
    return static_cast<std::size_t>(found - names.begin());
}

using Extents = std::vector<std::int32_t>;
using FunctionTuple = std::tuple<std::string_view, int, std::string>; // what it is, its number, its name for oracles
using NodeTuple = std::tuple<std::string_view, int, int>;
using NormTuple = std::tuple<std::int32_t, std::vector<int>>;

Shape shape_of(const Extents &extents) {
    Shape shape;
    if (extents.size() > kTileRank)
        throw std::invalid_argument("a tensor has more than " + std::to_string(kTileRank) + " dimensions");
    std::ranges::copy(extents, shape.extents.begin());
    shape.rank = static_cast<std::int32_t>(extents.size());
    return shape;
}

DegreeProgram program_of(std::size_t inputs, const std::vector<std::int64_t> &primes,
                         const std::vector<FunctionTuple> &functions, const std::vector<NodeTuple> &nodes,
                         const std::vector<int> &outputs) {
    DegreeProgram degrees;
    degrees.primes = primes;
    Program &program = degrees.program;
    program.named = true;
    program.parts.push_back(0);
    for (std::size_t i = 0; i < inputs; ++i) program.inputs.push_back({static_cast<int>(i), 0});
    for (const auto &[name, id, shown] : functions)
        program.functions.push_back({static_cast<Fn>(place(kFunctions, name)), static_cast<std::int16_t>(id), -1, 0});
    for (const auto &[name, a, b] : nodes) program.nodes.push_back({static_cast<Term>(place(kTerms, name)), a, b, 0});
    program.outputs = outputs;
    if (primes.size() > program.functions.size()) throw std::invalid_argument("a prime is no function");
    return degrees;
}

std::vector<std::string> names_of(const std::vector<FunctionTuple> &functions) {
    std::vector<std::string> names;
    for (const auto &[name, id, shown] : functions) names.push_back(shown);
    return names;
}

// A space, its roots, and what searches of them share.
struct Search {
    Control control;
    std::unique_ptr<Space> space;
    std::unique_ptr<Roots> roots;
    SharedAnswers shared;
    Asking asking;
    Team team;
    std::unique_ptr<Ranked> ranked; // of several processes: this one's part

    Served *served() { return ranked.get(); }
};

nb::tuple step_tuple(const Step &step) {
    const bool block = step.kind == kBlock;
    return nb::make_tuple(block ? std::string_view("block") : kKinds[static_cast<std::size_t>(step.kind)],
                          static_cast<int>(step.arg), static_cast<int>(step.a),
                          step.b == Step::kNone ? -1 : static_cast<int>(step.b));
}

nb::tuple block_tuple(const Block &block) {
    nb::list loads, body, stored;
    for (std::size_t i = 0; i < block.loads; ++i) {
        std::vector<int> imap(block.setting.imaps[i].begin(), block.setting.imaps[i].end());
        loads.append(nb::make_tuple(static_cast<int>(block.sources[i]), imap, static_cast<int>(block.setting.fmaps[i])));
    }
    for (std::size_t i = 0; i < block.steps; ++i) body.append(step_tuple(block.body[i]));
    for (std::size_t i = 0; i < block.stores; ++i) stored.append(static_cast<int>(block.stored[i]));
    const std::vector<int> omap(block.omap.begin(), block.omap.end());
    return nb::make_tuple(block.setting.grid, block.setting.loop, loads, body, stored, omap);
}

nb::tuple found_tuple(const Found &found) {
    nb::list nodes;
    for (const Step &step : found.nodes) {
        if (step.kind == kBlock) nodes.append(block_tuple(found.blocks[step.arg]));
        else nodes.append(step_tuple(step));
    }
    return nb::make_tuple(nodes, std::vector<int>(found.outputs.begin(), found.outputs.end()));
}

nb::list found_list(const std::vector<Found> &all) {
    nb::list made;
    for (const Found &found : all) made.append(found_tuple(found));
    return made;
}

// A table and z3's words for expressions of one program, for checks of one against the other.
class Judge {
  public:
    Judge(std::size_t inputs, const std::vector<std::int64_t> &primes, const std::vector<FunctionTuple> &functions,
          const std::vector<NodeTuple> &nodes, const std::vector<int> &outputs, const std::vector<std::int64_t> &degrees)
        : program_(program_of(inputs, primes, functions, nodes, outputs)), table_(program_, {}, degrees),
          expressions_(names_of(functions)) {
        theory_.inputs = inputs;
        theory_.primes = primes;
        describe(theory_, program_.program.functions, names_of(functions));
    }

    // An expression of what was made before: its number.
    std::uint32_t input(std::uint32_t place) {
        const Class c = place < table_.table().inputs.size() ? table_.table().inputs[place] : kNoClass;
        return known(expressions_.make(Expressed::input, place), c);
    }
    std::uint32_t make(std::string_view kind, std::uint32_t a, std::uint32_t b) {
        switch (kind == "sum" ? Expressed::sum : static_cast<Expressed>(place(kExpressed, kind) + 2)) {
        case Expressed::add: return known(expressions_.make(Expressed::add, a, b), table_.join(Rule::add, cls(a), cls(b)));
        case Expressed::sub: return known(expressions_.make(Expressed::sub, a, b), table_.join(Rule::sub, cls(a), cls(b)));
        case Expressed::mul: return known(expressions_.make(Expressed::mul, a, b), table_.join(Rule::mul, cls(a), cls(b)));
        case Expressed::div: return known(expressions_.make(Expressed::div, a, b), table_.join(Rule::div, cls(a), cls(b)));
        case Expressed::function:
            return known(expressions_.make(Expressed::function, a, b), table_.apply(cls(b), static_cast<int>(a)));
        case Expressed::sum: return known(expressions_.sum(a, b), table_.sum(cls(b), a));
        default: throw std::invalid_argument("there is no such expression");
        }
    }
    bool accepts(std::uint32_t e) const { return cls(e) != kNoClass; }
    // Nanoseconds of one probe, of classes drawn before.
    double probe_ns(std::size_t times) const {
        const std::uint64_t classes = std::max<std::uint64_t>(table_.table().classes(), 1);
        std::vector<std::pair<Class, Class>> drawn(1 << 12);
        for (std::size_t i = 0; i < drawn.size(); ++i)
            drawn[i] = {static_cast<Class>(mix(2 * i) % classes), static_cast<Class>(mix(2 * i + 1) % classes)};
        std::uint64_t hits = 0;
        const double start = cpu_seconds(); // the machine may have other work
        for (std::size_t i = 0; i < times; ++i) {
            const auto &[a, b] = drawn[i & (drawn.size() - 1)];
            hits += table_.join(Rule::mul, a, b) != kNoClass;
        }
        const double seconds = cpu_seconds() - start;
        return hits <= times ? 1e9 * seconds / static_cast<double>(times) : 0;
    }
    std::string text(std::uint32_t e) const { return expressions_.text(e); }
    std::string formula(std::uint32_t e) const { return tilesmith::formula(theory_, expressions_, e); }
    std::string axioms() const { return tilesmith::axioms(theory_); }
    const Table &table() const { return table_.table(); }

  private:
    Class cls(std::uint32_t e) const { return classes_.at(e); }
    std::uint32_t known(Expression e, Class c) {
        classes_.resize(std::max<std::size_t>(classes_.size(), expressions_.size()), kNoClass);
        return classes_[e] = c, e;
    }

    DegreeProgram program_;
    DegreeTable table_;
    Theory theory_;
    Expressions expressions_;
    std::vector<Class> classes_;
};

// The table of the symbolic space, of a program with named dimensions.
using NamedNode = std::tuple<std::string_view, int, int, std::vector<int>>;

Bases set_of(const std::vector<int> &bases) {
    Bases set = 0;
    for (const int base : bases) {
        if (base < 1 || base > kMaxBases) throw std::invalid_argument("dimension " + std::to_string(base) + " is unknown");
        set |= bit(static_cast<Base>(base));
    }
    return set;
}

Table named_table(const std::vector<int> &parts, const std::vector<std::vector<int>> &inputs,
                  const std::vector<FunctionTuple> &functions, const std::vector<NamedNode> &nodes,
                  const std::vector<int> &outputs) {
    constexpr std::array<std::string_view, 8> terms{"input", "apply", "add", "sub", "mul", "div", "matmul", "sum"};
    Program program;
    program.named = true;
    program.parts.push_back(0);
    for (const int part : parts) program.parts.push_back(static_cast<std::uint8_t>(part & 7));
    for (const std::vector<int> &bases : inputs) {
        if (bases.size() > kRank) throw std::invalid_argument("a tensor has more than " + std::to_string(kRank) + " dimensions");
        set_of(bases);
        Dims dims = 0;
        for (const int base : bases) dims = dims << 8 | static_cast<Dims>(base);
        program.inputs.push_back({static_cast<int>(program.inputs.size()), dims});
    }
    for (const auto &[name, id, shown] : functions)
        program.functions.push_back({static_cast<Fn>(place(kFunctions, name)), static_cast<std::int16_t>(id), -1, 0});
    for (const auto &[name, a, b, over] : nodes)
        program.nodes.push_back({static_cast<Term>(place(terms, name)), a, b, set_of(over)});
    program.outputs = outputs;
    return build_table(program, {});
}

int number_of(Class c) { return c == kNoClass ? -1 : static_cast<int>(c); }

struct Solver {
    Z3Oracle oracle;
    std::string ask(const std::string &formula) {
        switch (oracle.ask(formula)) {
        case Answer::no: return "no";
        case Answer::yes: return "yes";
        case Answer::unknown: break;
        }
        return "unknown";
    }
};

} // namespace

void bind_concrete(nb::module_ &module) {
    nb::class_<Z3>(module, "Z3").def(nb::init<const std::string &>(), "path"_a);

    nb::class_<Solver>(module, "Solver")
        .def("__init__",
             [](Solver *self, std::shared_ptr<const Z3> z3, const std::string &axioms, const std::vector<std::string> &targets,
                unsigned effort) { new (self) Solver{{std::move(z3), axioms, targets, effort}}; },
             "z3"_a, "axioms"_a, "targets"_a, "effort"_a)
        .def("ask", &Solver::ask, nb::call_guard<nb::gil_scoped_release>());

    nb::class_<Judge>(module, "Judge")
        .def(nb::init<std::size_t, const std::vector<std::int64_t> &, const std::vector<FunctionTuple> &,
                      const std::vector<NodeTuple> &, const std::vector<int> &, const std::vector<std::int64_t> &>(),
             "inputs"_a, "primes"_a, "functions"_a, "nodes"_a, "outputs"_a, "degrees"_a)
        .def("input", &Judge::input)
        .def("make", &Judge::make)
        .def("accepts", &Judge::accepts)
        .def("probe_ns", &Judge::probe_ns, nb::call_guard<nb::gil_scoped_release>())
        .def("text", &Judge::text)
        .def("formula", &Judge::formula)
        .def("axioms", &Judge::axioms)
        .def_prop_ro("classes", [](const Judge &judge) { return judge.table().classes(); })
        .def_prop_ro("rows", [](const Judge &judge) { return judge.table().rows.size(); })
        .def_prop_ro("seconds", [](const Judge &judge) { return judge.table().seconds; })
        .def_prop_ro("incomplete", [](const Judge &judge) { return judge.table().incomplete; });

    nb::class_<Table>(module, "NamedTable")
        .def("__init__",
             [](Table *self, const std::vector<int> &parts, const std::vector<std::vector<int>> &inputs,
                const std::vector<FunctionTuple> &functions, const std::vector<NamedNode> &nodes, const std::vector<int> &outputs) {
                 new (self) Table(named_table(parts, inputs, functions, nodes, outputs));
             },
             "parts"_a, "inputs"_a, "functions"_a, "nodes"_a, "outputs"_a)
        // Classes are numbers; -1 is none.
        .def("input", [](const Table &table, std::size_t place) { return number_of(table.inputs.at(place)); })
        .def("probe",
             [](const Table &table, std::string_view rule, int a, int b) {
                 constexpr std::array<std::string_view, 6> rules{"add", "sub", "mul", "div", "apply", "sum"};
                 const Rule known = static_cast<Rule>(place(rules, rule));
                 if (a < 0 || b < 0) return -1;
                 return number_of(table.probe(known, static_cast<Class>(a), static_cast<std::uint16_t>(b)));
             })
        .def_prop_ro("classes", [](const Table &table) { return table.classes(); })
        .def_prop_ro("rank", [](const Table &table) { return table.rank; })
        .def_prop_ro("incomplete", [](const Table &table) { return table.incomplete; });

    nb::class_<Counts>(module, "ConcreteCounts")
        .def_ro("states", &Counts::states)
        .def_ro("candidates", &Counts::candidates)
        .def_ro("tested", &Counts::tested)
        .def_ro("shape", &Counts::shape)
        .def_ro("phase", &Counts::phase)
        .def_ro("memory", &Counts::memory)
        .def_ro("oracle", &Counts::oracle)
        .def_ro("bound", &Counts::bound)
        .def_ro("unsound", &Counts::unsound)
        .def_ro("roots", &Counts::roots)
        .def_ro("frontier", &Counts::frontier)
        .def_prop_ro("depths",
                     [](const Counts &counts) { return std::vector<std::uint64_t>(counts.depths.begin(), counts.depths.end()); })
        .def_ro("calls", &Counts::calls)
        .def_ro("hits", &Counts::hits)
        .def_ro("unknown", &Counts::unknown)
        .def_ro("only_oracle", &Counts::only_oracle)
        .def_ro("only_table", &Counts::only_table)
        .def_ro("lock_s", &Counts::lock_s)
        .def_ro("cpu_s", &Counts::cpu_s)
        .def_ro("first_s", &Counts::first_s)
        .def_ro("given", &Counts::given)
        .def_ro("taken", &Counts::taken)
        .def_ro("times", &Counts::times);

    nb::class_<Search> search_class(module, "ConcreteSearch");
    bind_served(search_class);
    search_class
        .def("__init__",
             [](Search *self, const std::vector<Extents> &inputs, const std::vector<Extents> &outputs,
                const std::vector<std::int64_t> &primes, const std::vector<FunctionTuple> &functions,
                const std::vector<NodeTuple> &nodes, const std::vector<int> &targets, const std::vector<int> &unary,
                const std::vector<NormTuple> &norms, bool transposes, bool subtracts, int element_bytes, bool as_coded,
                bool bounded, bool heads, const std::vector<std::int32_t> &tiles, const std::vector<std::int32_t> &loops,
                std::int64_t least_blocks, std::int64_t most_blocks, int kernel_ops, int block_ops, int graph_defined,
                int loads, int stores, std::int64_t shared_bytes, int oracle_every, std::size_t max_classes, double seconds) {
                 Problem problem;
                 problem.degrees = program_of(inputs.size(), primes, functions, nodes, targets);
                 problem.names = names_of(functions);
                 for (const Extents &extents : inputs) problem.inputs.push_back(shape_of(extents));
                 for (const Extents &extents : outputs) problem.outputs.push_back(shape_of(extents));
                 problem.unary = unary;
                 for (const auto &[extent, root] : norms) problem.norms.push_back({extent, root});
                 problem.transposes = transposes;
                 problem.subtracts = subtracts;
                 problem.element_bytes = element_bytes;
                 Rules rules{as_coded, bounded, heads,  tiles,  loops,        least_blocks, most_blocks, kernel_ops, block_ops, graph_defined,
                             loads,    stores, shared_bytes, oracle_every};
                 new (self) Search{.control = Control(seconds), .space = {}, .roots = {}, .shared = {}, .asking = {}, .team = {}, .ranked = {}};
                 try {
                     TableLimits limits;
                     limits.classes = max_classes;
                     Control *control = &self->control;
                     limits.stopped = [control] { return control->poll(); };
                     self->space = std::make_unique<Space>(std::move(problem), std::move(rules), limits);
                 } catch (...) {
                     self->~Search();
                     throw;
                 }
             },
             nb::kw_only(), "inputs"_a, "outputs"_a, "primes"_a, "functions"_a, "nodes"_a, "targets"_a, "unary"_a, "norms"_a,
             "transposes"_a, "subtracts"_a, "element_bytes"_a, "as_coded"_a, "bounded"_a, "heads"_a, "tiles"_a, "loops"_a,
             "least_blocks"_a, "most_blocks"_a, "kernel_ops"_a, "block_ops"_a, "graph_defined"_a, "loads"_a, "stores"_a,
             "shared_bytes"_a, "oracle_every"_a, "max_classes"_a, "seconds"_a)
        .def(
            "ask_z3",
            [](Search &search, std::shared_ptr<const Z3> z3, std::string_view cache, unsigned effort) {
                constexpr std::array<std::string_view, 3> caches{"none", "thread", "shared"};
                search.asking = {Asked::z3, static_cast<Cache>(place(caches, cache)), std::move(z3), effort};
            },
            "z3"_a, "cache"_a, "effort"_a)
        .def("breadth_first",
             [](Search &search, std::size_t frontier_bytes) {
                 search.team.order = Order::bfs;
                 search.team.frontier_bytes = frontier_bytes;
             })
        // How many there are; found once.
        .def("roots",
             [](Search &search) {
                 if (!search.roots) search.roots = std::make_unique<Roots>(*search.space, search.control);
                 return search.roots->size();
             },
             nb::call_guard<nb::gil_scoped_release>())
        .def("interrupt", [](Search &search) { search.control.interrupt(); })
        .def_prop_ro("stop",
                     [](const Search &search) {
                         constexpr std::array<std::string_view, 5> stops{"exhausted", "seconds", "graphs", "interrupted", "incomplete"};
                         return stops[static_cast<std::size_t>(search.control.reason())];
                     })
        .def_prop_ro("incomplete", [](const Search &search) { return search.space->table().table().incomplete; })
        .def_prop_ro("classes", [](const Search &search) { return search.space->table().table().classes(); })
        .def_prop_ro("rows", [](const Search &search) { return search.space->table().table().rows.size(); })
        .def_prop_ro("table_s", [](const Search &search) { return search.space->table().table().seconds; })
        .def_prop_ro("unfit_roots", [](const Search &search) { return search.space->unfit(); })
        .def_prop_ro("predefined", [](const Search &search) { return found_list(search.roots->predefined()); })
        .def_prop_ro("root_counts", [](const Search &search) { return search.roots->counts(); })
        // Each root by itself, for who deals them out; its counts are of this call.
        .def("search_root",
             [](Search &search, std::size_t index) {
                 Worker worker(*search.roots, search.asking, &search.shared, search.control);
                 std::vector<Found> found;
                 {
                     const nb::gil_scoped_release release;
                     found = worker.search_root(index, search.team.order, search.team.frontier_bytes);
                 }
                 return nb::make_tuple(found_list(found), worker.counted());
             })
        .def("run",
             [](Search &search, int threads, bool dealt, std::uint64_t max_graphs, bool timeline) {
                 Team team = search.team;
                 team.sharing = dealt ? Sharing::dealt : Sharing::shared;
                 team.threads = threads;
                 team.graphs = max_graphs;
                 team.timeline = timeline;
                 Share share;
                 {
                     const nb::gil_scoped_release release;
                     share = share_out(*search.roots, search.asking, search.shared, search.control, team);
                 }
                 nb::list found;
                 for (const auto &[root, one] : share.found) found.append(nb::make_tuple(root, found_tuple(one)));
                 return nb::make_tuple(found, share.counts);
             },
             "threads"_a, "dealt"_a, "max_graphs"_a, "timeline"_a)
        .def("serve",
             [](Search &search, int threads, bool timeline, std::uint64_t max_graphs, int ranks) {
                 search.team.threads = threads;
                 search.team.timeline = timeline;
                 search.team.graphs = max_graphs;
                 search.team.ranks = ranks;
                 search.ranked =
                     std::make_unique<Ranked>(*search.roots, search.asking, search.shared, search.control, search.team);
             },
             "threads"_a, "timeline"_a, "max_graphs"_a, "ranks"_a)
        .def("run_served", [](Search &search) { return search.ranked->run(); }, nb::call_guard<nb::gil_scoped_release>())
        .def("learn", [](Search &, nb::bytes) {}, "made"_a)
        .def("tell", [](Search &search, nb::bytes found) { search.ranked->tell(view(found)); }, "found"_a)
        .def("told_enough",
             [](Search &search) {
                 const std::uint64_t most = search.team.graphs;
                 return most && search.roots->predefined().size() + search.ranked->told() >= most;
             })
        .def("conclude", [](Search &search) {
            nb::list found;
            for (const auto &[root, one] : search.ranked->conclude()) found.append(found_tuple(one));
            return found;
        });
}

} // namespace tilesmith
