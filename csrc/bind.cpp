// What Python sees of the search. No other file here knows Python.

#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <array>
#include <optional>
#include <stdexcept>
#include <string_view>
#include <tuple>

#include "bind_served.hpp"
#include "engine.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace tilesmith {
namespace {

constexpr std::array<std::string_view, 9> kFunctions{"exp",   "square",     "sqrt",     "rsqrt", "reciprocal",
                                                     "scale", "shift",      "rms_norm", "opaque"};
constexpr std::array<std::string_view, 9> kTerms{"input", "apply", "add", "sub", "mul", "div", "matmul", "sum", "permute"};
constexpr std::array<std::string_view, 9> kSteps{"add",   "sub", "mul",        "div",           "matmul",
                                                 "apply", "sum", "accumulate", "accumulate_sum"};
constexpr std::array<std::string_view, 5> kStops{"exhausted", "seconds", "graphs", "interrupted", "incomplete"};

constexpr std::array<std::string_view, kActivities> kActivitiesNamed{"busy", "waiting", "stealing", "oracle"};
constexpr std::array<std::string_view, 2> kSharings{"static", "openmp"}; // between ranks as between threads
constexpr std::array<std::string_view, 2> kOrders{"dfs", "bfs"};


template <typename Enum, std::size_t n> Enum named(const std::array<std::string_view, n> &names, std::string_view name) {
    const auto found = std::ranges::find(names, name);
    if (found == names.end()) throw std::invalid_argument("there is no " + std::string(name));
    return static_cast<Enum>(found - names.begin());
}

Bases set_of(const std::vector<int> &bases) {
    Bases set = 0;
    for (const int base : bases) {
        if (base < 1 || base > kMaxBases) throw std::invalid_argument("dimension " + std::to_string(base) + " is unknown");
        set |= bit(static_cast<Base>(base));
    }
    return set;
}

std::vector<int> bases_in(Bases set) {
    std::vector<int> bases;
    for (; set; set &= set - 1) bases.push_back(__builtin_ctz(set));
    return bases;
}

using InputTuple = std::tuple<int, std::vector<int>, double>;
using FunctionTuple = std::tuple<std::string_view, int, int, int>;
using NodeTuple = std::tuple<std::string_view, int, int, std::vector<int>>;

void fill(Request &request, const std::vector<int> &parts, const std::vector<std::int64_t> &extents,
          const std::vector<InputTuple> &inputs, const std::vector<FunctionTuple> &functions,
          const std::vector<NodeTuple> &nodes, const std::vector<int> &outputs,
          const std::vector<std::pair<int, int>> &aliases) {
    Program &program = request.program;
    program.named = true;
    program.parts.push_back(0);
    request.sizes.extents.push_back(1);
    if (parts.size() != extents.size()) throw std::invalid_argument("not every dimension has parts and an extent");
    for (const int part : parts) program.parts.push_back(static_cast<std::uint8_t>(part & 7));
    for (const std::int64_t extent : extents) {
        if (extent < 1) throw std::invalid_argument("a dimension has an extent below 1");
        request.sizes.extents.push_back(extent);
    }
    for (const auto &[tensor, bases, bytes] : inputs) {
        if (bases.size() > kRank) throw std::invalid_argument("a tensor has more than " + std::to_string(kRank) + " dimensions");
        set_of(bases);
        Dims dims = 0;
        for (const int base : bases) dims = dims << 8 | static_cast<Dims>(base);
        program.inputs.push_back({tensor, dims});
        request.sizes.input_bytes.push_back(bytes);
    }
    for (const auto &[name, id, eps, base] : functions)
        program.functions.push_back({named<Fn>(kFunctions, name), static_cast<std::int16_t>(id),
                                     static_cast<std::int16_t>(eps), static_cast<Base>(base)});
    for (const auto &[name, a, b, over] : nodes)
        program.nodes.push_back({name == "rename" ? Term::rename : named<Term>(kTerms, name), a, b, set_of(over)});
    program.outputs = outputs;
    for (const auto &[from, to] : aliases) program.aliases.emplace_back(static_cast<Base>(from), static_cast<Base>(to));
}

// A tensor between kernels: its number, and the parts of each base that it has.
std::tuple<std::uint64_t, std::vector<std::pair<int, int>>> tensor_of(const Engine &engine, Tensor t) {
    std::vector<std::pair<int, int>> dims;
    for (int b = 1; b <= engine.request().program.bases(); ++b)
        if (const unsigned parts = parts_of(engine.space().free(class_of(t)), static_cast<Base>(b)))
            dims.emplace_back(b, static_cast<int>(parts));
    return {t, dims};
}

// What it shows is the engine's, which it keeps.
struct KernelView {
    nb::object owner;
    const Engine *engine;
    const Scheduled *scheduled;
};

nb::list values_of(const KernelView &view) {
    const Replayed values = replay(view.engine->space(), *view.scheduled->kernels, *view.scheduled->implementation);
    nb::list all;
    for (std::size_t v = 0; v < values.classes.size(); ++v) {
        std::vector<int> tile;
        for (int b = 1; b <= view.engine->request().program.bases(); ++b)
            if (parts_of(values.tiles[v], static_cast<Base>(b))) tile.push_back(b);
        all.append(nb::make_tuple(tile, static_cast<int>(values.phases[v])));
    }
    return all;
}

// Nanoseconds of processor time for one change of what a worker does, by many of them.
double turn_ns(std::size_t times, bool timeline) {
    const Control control;
    Track track(control, timeline);
    const double start = cpu_seconds();
    for (std::size_t i = 0; i < times; ++i) track.to(i & 1 ? Activity::waiting : Activity::busy);
    const double seconds = cpu_seconds() - start;
    return track.take().of(Activity::busy) >= 0 ? 1e9 * seconds / static_cast<double>(times) : 0;
}

nb::list steps_of(const KernelView &view) {
    nb::list all;
    const Implementation &made = *view.scheduled->implementation;
    for (std::size_t i = 0; i < made.steps; ++i) {
        const Step &step = view.scheduled->kernels->steps[made.first_step + i];
        const bool applies = step.kind == StepKind::apply;
        const std::vector<int> over = applies ? std::vector<int>{} : bases_in(view.engine->space().sets()[step.arg]);
        all.append(nb::make_tuple(kSteps[static_cast<std::size_t>(step.kind)], static_cast<int>(step.a),
                                  step.b == Step::kNoOperand ? -1 : static_cast<int>(step.b),
                                  applies ? static_cast<int>(step.arg) : -1, over));
    }
    return all;
}

} // namespace
} // namespace tilesmith

namespace tilesmith {
void bind_concrete(nb::module_ &module);
}

NB_MODULE(_core, module) {
    using namespace tilesmith;
    bind_concrete(module);
    module.doc() = "The search engine of the symbolic space, in C++.";

    nb::class_<Device>(module, "Device")
        .def(nb::init<>())
        .def_rw("multiprocessors", &Device::multiprocessors)
        .def_rw("dram_bytes_per_s", &Device::dram_bytes_per_s)
        .def_rw("l2_bytes_per_s", &Device::l2_bytes_per_s)
        .def_rw("matrix_flops", &Device::matrix_flops)
        .def_rw("vector_flops", &Device::vector_flops)
        .def_rw("launch_s", &Device::launch_s)
        .def_rw("pass_s", &Device::pass_s)
        .def_rw("register_bytes", &Device::register_bytes)
        .def_rw("shared_bytes", &Device::shared_bytes)
        .def_rw("blocks", &Device::blocks);

    nb::class_<Counters>(module, "Counters")
        .def_ro("states", &Counters::states)
        .def_ro("candidates", &Counters::candidates)
        .def_ro("shape", &Counters::shape)
        .def_ro("phase", &Counters::phase)
        .def_ro("table", &Counters::table)
        .def_ro("duplicate", &Counters::duplicate)
        .def_ro("bound", &Counters::bound)
        .def_ro("blocks", &Counters::blocks)
        .def_prop_ro("short_by", [](const Counters &counters) {
            return counters.short_by == Counters::kNotShort ? 0 : counters.short_by;
        });

    nb::class_<Times>(module, "Times")
        .def_prop_ro("busy_s", [](const Times &times) { return times.of(Activity::busy); })
        .def_prop_ro("wait_s", [](const Times &times) { return times.of(Activity::waiting); })
        .def_prop_ro("steal_s", [](const Times &times) { return times.of(Activity::stealing); })
        .def_prop_ro("oracle_s", [](const Times &times) { return times.of(Activity::oracle); })
        .def_prop_ro("spans", [](const Times &times) {
            std::vector<std::tuple<std::string_view, double, double>> spans;
            for (const Span &span : times.spans)
                spans.emplace_back(kActivitiesNamed[static_cast<std::size_t>(span.activity)], span.start_s, span.end_s);
            return spans;
        });
    module.def("turn_ns", &turn_ns, "times"_a, "timeline"_a, nb::call_guard<nb::gil_scoped_release>());

    nb::class_<Worker>(module, "Worker")
        .def_ro("counters", &Worker::counters)
        .def_ro("items", &Worker::items)
        .def_ro("nodes", &Worker::nodes)
        .def_ro("given", &Worker::given)
        .def_ro("times", &Worker::times);

    nb::class_<KernelView>(module, "Kernel")
        .def_prop_ro("inputs", [](const KernelView &view) {
            nb::list all;
            for (const Tensor t : view.scheduled->kernels->inputs) all.append(nb::cast(tensor_of(*view.engine, t)));
            return all;
        })
        .def_prop_ro("outputs", [](const KernelView &view) {
            nb::list all;
            for (std::size_t i = 0; i < kMaxStores; ++i)
                if (const Tensor t = view.scheduled->signature->outputs[i]; t != kNoTensor)
                    all.append(nb::make_tuple(nb::cast(tensor_of(*view.engine, t)),
                                              static_cast<int>(view.scheduled->implementation->stores[i])));
            return all;
        })
        .def_prop_ro("values", &values_of)
        .def_prop_ro("steps", &steps_of)
        .def_prop_ro("walk", [](const KernelView &view) {
            const Walk &walk = view.scheduled->implementation->walk;
            return nb::make_tuple(static_cast<int>(walk.loop), static_cast<int>(walk.loop_parts), static_cast<int>(walk.split));
        })
        .def_prop_ro("cuts", [](const KernelView &view) {
            std::vector<std::pair<int, std::int64_t>> cuts;
            for (std::size_t b = 1; b <= static_cast<std::size_t>(view.engine->request().program.bases()); ++b)
                if (const std::int64_t cut = view.scheduled->cost.schedule.cuts[b]; cut > 1)
                    cuts.emplace_back(static_cast<int>(b), cut);
            return cuts;
        })
        .def_prop_ro("loop", [](const KernelView &view) { return view.scheduled->cost.schedule.loop; })
        .def_prop_ro("split", [](const KernelView &view) { return view.scheduled->cost.schedule.split; })
        .def_prop_ro("seconds", [](const KernelView &view) { return view.scheduled->cost.seconds; })
        .def_prop_ro("bytes", [](const KernelView &view) { return view.scheduled->cost.bytes; })
        .def_prop_ro("traffic", [](const KernelView &view) { return view.scheduled->cost.traffic; })
        .def_prop_ro("flops", [](const KernelView &view) { return view.scheduled->cost.flops; })
        .def_prop_ro("shared_bytes", [](const KernelView &view) { return view.scheduled->cost.shared; });

    nb::class_<Result>(module, "Result")
        .def_prop_ro("stop", [](const Result &result) { return kStops[static_cast<std::size_t>(result.stop)]; })
        .def_ro("incomplete", &Result::incomplete)
        .def_ro("table_s", &Result::table_s)
        .def_ro("search_s", &Result::search_s)
        .def_ro("rank_s", &Result::rank_s)
        .def_ro("graphs", &Result::graphs)
        .def_ro("plans", &Result::plans)
        .def_ro("implementations", &Result::implementations)
        .def_ro("unfit", &Result::unfit)
        .def_ro("schedules", &Result::schedules)
        .def_ro("workers", &Result::workers);

    nb::class_<Engine> engine_class(module, "Engine");
    bind_served(engine_class);
    engine_class
        .def("__init__",
             [](Engine *self, const std::vector<int> &parts, const std::vector<std::int64_t> &extents,
                const std::vector<InputTuple> &inputs, const std::vector<FunctionTuple> &functions,
                const std::vector<NodeTuple> &nodes, const std::vector<int> &outputs,
                const std::vector<std::pair<int, int>> &aliases, const Device &device, double element_bytes,
                bool closure, std::string_view schedule, std::string_view order, int threads, std::size_t frontier_bytes,
                bool timeline, int ranks, int rank, int block_ops, int kernel_inputs, int kernel_outputs, int kernels, double seconds,
                std::uint64_t max_graphs, std::size_t keep, std::size_t max_classes) {
                 Request request;
                 fill(request, parts, extents, inputs, functions, nodes, outputs, aliases);
                 request.device = device;
                 request.sizes.element_bytes = element_bytes;
                 request.kernels = {{block_ops, kernel_outputs}, kernel_inputs, kernels};
                 request.kernels.block.whole = request.kernels.block.unscaled = true;
                 request.space.fused_accumulators = true;
                 request.closure = closure;
                 request.team = {named<Sharing>(kSharings, schedule), named<Order>(kOrders, order), threads, frontier_bytes,
                                 max_graphs, timeline, ranks, rank};
                 request.seconds = seconds;
                 request.keep = keep;
                 request.table.classes = max_classes;
                 new (self) Engine(std::move(request));
             },
             "parts"_a, "extents"_a, "inputs"_a, "functions"_a, "nodes"_a, "outputs"_a, "aliases"_a, nb::kw_only(),
             "device"_a, "element_bytes"_a, "closure"_a, "schedule"_a, "order"_a, "threads"_a,
             "frontier_bytes"_a, "timeline"_a, "ranks"_a, "rank"_a, "block_ops"_a, "kernel_inputs"_a, "kernel_outputs"_a, "kernels"_a, "seconds"_a,
             "max_graphs"_a, "keep"_a, "max_classes"_a)
        .def("run", &Engine::run, nb::call_guard<nb::gil_scoped_release>(), nb::rv_policy::reference_internal)
        .def("learn", [](Engine &engine, nb::bytes made) { engine.learn(view(made)); }, "made"_a)
        .def("tell", [](Engine &engine, nb::bytes found) { engine.tell(view(found)); }, "found"_a)
        .def("told_enough", &Engine::told_enough)
        .def("replay", &Engine::replay)
        .def("conclude", &Engine::conclude, nb::rv_policy::reference_internal)
        .def("interrupt", [](Engine &engine) { engine.control().interrupt(); })
        .def_prop_ro("classes", [](const Engine &engine) { return engine.table().classes(); })
        .def_prop_ro("rows", [](const Engine &engine) { return engine.table().rows.size(); })
        .def_prop_ro("input_tensors", [](const Engine &engine) {
            using Names = std::vector<std::pair<int, int>>;
            std::vector<std::optional<std::pair<std::uint64_t, Names>>> tensors;
            for (std::size_t i = 0; i < engine.table().inputs.size(); ++i) {
                auto &made = tensors.emplace_back();
                const Class c = engine.table().inputs[i];
                if (c == kNoClass) continue;
                made.emplace(tensor(c, 0), Names{});
                const int renaming = engine.table().input_names[i];
                if (renaming < 0) continue;
                for (const auto &[from, to] : engine.table().renamings[static_cast<std::size_t>(renaming)])
                    made->second.emplace_back(from, to);
            }
            return tensors;
        })
        .def_prop_ro("output_tensors", [](const Engine &engine) {
            std::vector<std::uint64_t> tensors;
            for (const Class c : engine.table().outputs) tensors.push_back(tensor(c, 0));
            return tensors;
        })
        .def_prop_ro("views", [](const Engine &engine) {
            std::vector<std::tuple<std::uint64_t, std::uint64_t, std::vector<std::pair<int, int>>>> views;
            for (std::size_t r = 0; r < engine.table().views.size(); ++r) {
                std::vector<std::pair<int, int>> names;
                for (const auto &[from, to] : engine.table().renamings[r]) names.emplace_back(from, to);
                for (std::size_t c = 0; c < engine.table().classes(); ++c)
                    if (const Class other = engine.table().views[r][c]; other != kNoClass && other != c)
                        views.emplace_back(c, other, names);
            }
            return views;
        })
        .def("graphs", [](nb::object self) {
            const Engine &engine = nb::cast<const Engine &>(self);
            std::vector<std::vector<KernelView>> graphs;
            for (const Derivation &ranked : engine.result().ranked) {
                auto &graph = graphs.emplace_back();
                for (const Scheduled &scheduled : ranked.kernels) graph.push_back({self, &engine, &scheduled});
            }
            return graphs;
        });
}
