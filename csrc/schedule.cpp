#include "schedule.hpp"

#include <algorithm>
#include <cmath>

namespace tilesmith {
namespace {

constexpr std::int64_t kLeastMatrix = 16;
constexpr std::int64_t kLargestTile = 512;
constexpr double kFunctionFlops = 8; // of an exponential or its like

// A number of elements: a constant times the variables whose bits are set.
struct Product {
    double constant = 1;
    std::uint32_t variables = 0;

    double at(const std::array<double, kMaxBases + 1> &tiles) const {
        double product = constant;
        for (std::uint32_t left = variables; left; left &= left - 1) product *= tiles[static_cast<std::size_t>(__builtin_ctz(left))];
        return product;
    }
};

// Tiles of a dimension, as lengths: powers of two that divide it, and the whole where it is short.
std::vector<std::int64_t> tiles_of(std::int64_t extent, bool matrix) {
    const std::int64_t least = matrix ? std::min(kLeastMatrix, extent) : 1;
    std::vector<std::int64_t> tiles;
    for (std::int64_t tile = 1; tile <= std::min(extent, kLargestTile); tile *= 2)
        if (tile >= least && extent % tile == 0) tiles.push_back(tile);
    if (extent <= 2 * kLargestTile && std::ranges::find(tiles, extent) == tiles.end()) tiles.push_back(extent);
    if (tiles.empty())
        for (std::int64_t tile = std::min(extent, kLargestTile); tiles.empty(); --tile)
            if (extent % tile == 0) tiles.push_back(tile);
    return tiles;
}

} // namespace

// An implementation with its tiles left open.
struct Scheduler::Problem {
    struct Work {
        Product rows, columns, inner, batch; // of a matrix product
        Product elements;                    // of any other step
        double each = 0;                     // operations an element
        bool matrix = false, repeats = false;
    };
    struct Moved {
        Product elements;
        double bytes = 0;
        bool repeats = false;
    };

    std::vector<Base> open;                       // bases along which blocks lie
    std::vector<std::vector<std::int64_t>> tiles; // of each
    std::vector<std::int64_t> loop_tiles;         // none without a loop over whole parts
    std::int64_t looped_extent = 1;
    std::int64_t fixed_loop = 0; // of a loop over the grid's parts
    std::int64_t split = 1;

    std::vector<Work> work;
    std::vector<Moved> moved;
    std::vector<std::vector<std::pair<Product, double>>> alive; // sets of values that live at once, with their bytes
    std::vector<Product> accumulators;
    double unique_bytes = 0;
    bool possible = true;
};

Scheduler::Scheduler(const Space &space, const Sizes &sizes, const Device &device)
    : space_(space), sizes_(sizes), device_(device) {
    for (std::size_t i = 0; i < space.table().inputs.size(); ++i)
        if (space.table().inputs[i] != kNoClass) input_bytes_[space.table().inputs[i]] = sizes.input_bytes[i];
}

// Whether a tensor has only some of the parts of a base: the sums of a split, one for every part.
bool Scheduler::partial(Free free) const {
    for (int b = 1; b <= space_.program().bases(); ++b) {
        const Base base = static_cast<Base>(b);
        const unsigned parts = parts_of(free, base);
        if (parts && parts != space_.program().parts[base]) return true;
    }
    return false;
}

bool Scheduler::depends_on_split(const Kernels &kernels, const Implementation &made, const Signature &signature) const {
    if (made.walk.split) return true;
    const auto is_partial = [&](Tensor t) { return t != kNoTensor && partial(space_.free(class_of(t))); };
    return std::ranges::any_of(kernels.inputs, is_partial) || std::ranges::any_of(signature.outputs, is_partial);
}

double Scheduler::bound(const Kernels &kernels, const Signature &signature, std::int64_t split) const {
    double bytes = 0;
    const auto count = [&](Tensor t) {
        double elements = 1;
        for (int b = 1; b <= space_.program().bases(); ++b)
            elements *= static_cast<double>(extent(space_.free(class_of(t)), static_cast<Base>(b), split));
        const auto known = input_bytes_.find(class_of(t));
        bytes += elements * (known == input_bytes_.end() ? sizes_.element_bytes : known->second);
    };
    for (const Tensor input : kernels.inputs) count(input);
    for (const Tensor output : signature.outputs)
        if (output != kNoTensor) count(output);
    return bytes / device_.dram_bytes_per_s + device_.launch_s;
}

// The extent of some parts of a base: all of them, the grid's alone, or what the grid leaves.
std::int64_t Scheduler::extent(Free free, Base base, std::int64_t split) const {
    const unsigned parts = parts_of(free, base);
    const std::int64_t whole = sizes_.extents[base];
    if (!parts) return 1;
    if (parts == space_.program().parts[base]) return whole;
    return parts == kInGrid ? split : whole / split;
}

Cost Scheduler::best(const Kernels &kernels, const Implementation &made, const Signature &signature, std::int64_t split) {
    const Replayed values = replay(space_, kernels, made);
    const Walk &walk = made.walk;
    const int bases = space_.program().bases();
    Problem problem;
    problem.split = split;

    const auto element_bytes = [&](std::size_t value) {
        const auto known = value < values.loads ? input_bytes_.find(values.classes[value]) : input_bytes_.end();
        return known == input_bytes_.end() ? sizes_.element_bytes : known->second;
    };

    // Splits must divide; a tensor of partial sums has one part for every one.
    const auto divides = [&](Free free) {
        for (int b = 1; b <= bases; ++b) {
            const Base base = static_cast<Base>(b);
            const unsigned parts = parts_of(free, base);
            if (parts && parts != space_.program().parts[base] && sizes_.extents[base] % split) return false;
        }
        return true;
    };
    for (const Class c : values.classes)
        if (!divides(space_.free(c))) return {};
    if (walk.split && (sizes_.extents[walk.split] % split || split < 2)) return {};

    // Blocks lie along a base that every output has whole and that no step removes.
    std::uint32_t matrix = 0, removed = 0, looped_matrix = 0;
    for (std::size_t i = 0; i < made.steps; ++i) {
        const Step &step = kernels.steps[made.first_step + i];
        const std::size_t value = values.loads + i;
        Free before = values.tiles[step.a];
        if (step.b != Step::kNoOperand) before |= values.tiles[step.b];
        for (int b = 1; b <= bases; ++b) {
            const Base base = static_cast<Base>(b);
            if (parts_of(before, base) && !parts_of(values.tiles[value], base)) removed |= bit(base);
            if (step.kind == StepKind::matmul && parts_of(before, base)) matrix |= bit(base);
            if (step.kind == StepKind::matmul && base == walk.loop) looped_matrix |= parts_of(before, base) ? 1u : 0u;
        }
        const Function *function =
            step.kind == StepKind::apply ? &space_.program().functions[step.arg] : nullptr;
        if (function && function->fn == Fn::rms_norm) removed |= bit(function->base);
    }
    for (int b = 1; b <= bases; ++b) {
        const Base base = static_cast<Base>(b);
        if (base == walk.loop || base == walk.split || (removed & bit(base))) continue;
        const unsigned whole = space_.program().parts[base];
        const bool stored = std::ranges::all_of(signature.outputs, [&](Tensor t) {
            return t == kNoTensor || parts_of(space_.free(class_of(t)), base) == whole;
        });
        const bool undivided = std::ranges::all_of(values.tiles, [&](Free tile) {
            const unsigned parts = parts_of(tile, base);
            return !parts || parts == whole;
        });
        if (!stored || !undivided) continue;
        problem.open.push_back(base);
        problem.tiles.push_back(tiles_of(sizes_.extents[base], matrix & bit(base)));
    }

    // The loop runs over what the grid leaves of a base, or over the grid's parts themselves.
    if (walk.loop) {
        Free inputs = 0;
        bool by_part = false;
        for (std::size_t i = 0; i < values.loads; ++i) {
            const Free free = space_.free(values.classes[i]) & values.looped;
            inputs |= free;
            by_part |= free && (walk.loop_parts & kInGrid) && !(parts_of(free, walk.loop) & kInLoop);
        }
        problem.looped_extent = sizes_.extents[walk.loop] / (walk.split ? split : 1);
        if (by_part) problem.fixed_loop = split;
        else problem.loop_tiles = tiles_of(problem.looped_extent, looped_matrix != 0);
        // A loop of one pass is the kernel without a loop.
        std::erase(problem.loop_tiles, problem.looped_extent);
        if (!by_part && problem.loop_tiles.empty()) return {};
        if (by_part && split < 2) return {};
    }

    // Sizes: variable 0 is the loop's tile, variable b the tile along base b.
    std::uint32_t open = 0;
    for (const Base base : problem.open) open |= bit(base);
    const auto product = [&](Free tile, Bases only, Bases except = 0) {
        Product made_product;
        for (int b = 1; b <= bases; ++b) {
            const Base base = static_cast<Base>(b);
            const unsigned parts = parts_of(tile, base);
            if (!parts || !(only & bit(base)) || (except & bit(base))) continue;
            if (open & bit(base)) made_product.variables |= bit(base);
            else if (base == walk.loop && (parts & kInBlock) && !problem.fixed_loop) made_product.variables |= 1;
            else if (base == walk.loop && (parts & kInBlock))
                made_product.constant *= static_cast<double>(problem.looped_extent / problem.fixed_loop);
            else {
                // What a split leaves of its base is a part of it.
                const std::int64_t whole = base == walk.split ? sizes_.extents[base] / split : extent(tile, base, split);
                made_product.constant *= static_cast<double>(whole);
            }
        }
        return made_product;
    };
    constexpr Bases every = ~Bases{0};
    for (std::size_t i = 0; i < values.loads; ++i) {
        const bool repeats = values.phases[i] == Phase::varying;
        problem.moved.push_back({product(values.tiles[i], every), element_bytes(i), repeats});
        double elements = 1;
        for (int b = 1; b <= bases; ++b)
            elements *= static_cast<double>(extent(space_.free(values.classes[i]), static_cast<Base>(b), split));
        problem.unique_bytes += elements * element_bytes(i);
    }
    for (std::size_t s = 0; s < kMaxStores; ++s) {
        if (signature.outputs[s] == kNoTensor) continue;
        problem.moved.push_back({product(values.tiles[made.stores[s]], every), sizes_.element_bytes, false});
        double elements = 1;
        for (int b = 1; b <= bases; ++b)
            elements *= static_cast<double>(extent(space_.free(class_of(signature.outputs[s])), static_cast<Base>(b), split));
        problem.unique_bytes += elements * sizes_.element_bytes;
    }

    const auto is_accumulator = [&](std::size_t value) {
        if (value < values.loads) return false;
        const StepKind kind = kernels.steps[made.first_step + value - values.loads].kind;
        return kind == StepKind::accumulate || kind == StepKind::accumulate_sum;
    };
    const std::size_t count = values.classes.size();
    std::vector<std::size_t> last(count, 0);
    std::size_t loop_end = values.loads;
    for (std::size_t v = values.loads; v < count; ++v) {
        const Step &step = kernels.steps[made.first_step + v - values.loads];
        last[step.a] = std::max(last[step.a], v);
        if (step.b != Step::kNoOperand) last[step.b] = std::max(last[step.b], v);
        if (values.phases[v] == Phase::varying || is_accumulator(v)) loop_end = std::max(loop_end, v);

        Problem::Work work;
        const Phase phase = is_accumulator(v) ? Phase::varying : values.phases[v];
        work.repeats = phase == Phase::varying;
        if (step.kind == StepKind::matmul) {
            const Bases over = space_.sets()[step.arg];
            const Free x = values.tiles[step.a], y = values.tiles[step.b];
            Bases left = 0, right = 0;
            for (int b = 1; b <= bases; ++b) {
                if (parts_of(x, static_cast<Base>(b))) left |= bit(static_cast<Base>(b));
                if (parts_of(y, static_cast<Base>(b))) right |= bit(static_cast<Base>(b));
            }
            work.matrix = true;
            work.inner = product(x, over);
            work.batch = product(x, left & right & ~over);
            work.rows = product(x, left & ~right);
            work.columns = product(y, right & ~left);
            problem.accumulators.push_back(product(values.tiles[v], every));
        } else {
            const Free larger = values.tiles[step.a] | (step.b == Step::kNoOperand ? 0 : values.tiles[step.b]);
            work.elements = product(larger, every);
            const bool function = step.kind == StepKind::apply && space_.program().functions[step.arg].fn != Fn::scale &&
                                  space_.program().functions[step.arg].fn != Fn::shift;
            work.each = function || step.kind == StepKind::div ? kFunctionFlops : 1;
            if (is_accumulator(v)) problem.accumulators.push_back(product(values.tiles[v], every));
        }
        problem.work.push_back(work);
    }
    for (std::size_t s = 0; s < kMaxStores; ++s)
        if (signature.outputs[s] != kNoTensor) last[made.stores[s]] = count;

    // The same rule of lives as the checker's.
    std::vector<std::uint32_t> lives;
    for (std::size_t now = values.loads; now <= count; ++now) {
        std::uint32_t set = 0;
        for (std::size_t v = 0; v < count; ++v) {
            const std::size_t held = std::max(last[v], loop_end);
            const bool alive = v < values.loads || is_accumulator(v)
                                   ? now <= held
                                   : v <= now && now <= (values.phases[v] == Phase::invariant ? held : last[v]);
            if (alive) set |= 1u << v;
        }
        lives.push_back(set);
    }
    for (std::size_t i = 0; i < lives.size(); ++i) {
        const bool covered = std::ranges::any_of(lives, [&](const std::uint32_t &other) {
            return &other != &lives[i] && (lives[i] & ~other) == 0 && (other != lives[i] || &other < &lives[i]);
        });
        if (covered) continue;
        auto &set = problem.alive.emplace_back();
        for (std::size_t v = 0; v < count; ++v)
            if (lives[i] >> v & 1)
                set.emplace_back(product(values.tiles[v], every), is_accumulator(v) ? 4.0 : element_bytes(v));
    }

    // Every tiling.
    Cost best_cost;
    std::array<double, kMaxBases + 1> tiles{};
    std::vector<std::size_t> pick(problem.open.size(), 0);
    const std::size_t loops = std::max<std::size_t>(1, problem.loop_tiles.size());
    const double multiprocessors = device_.multiprocessors;
    for (bool more = true; more;) {
        double blocks = walk.split ? static_cast<double>(split) : 1.0;
        for (std::size_t i = 0; i < pick.size(); ++i) {
            const std::int64_t tile = problem.tiles[i][pick[i]];
            tiles[problem.open[i]] = static_cast<double>(tile);
            blocks *= static_cast<double>(sizes_.extents[problem.open[i]] / tile);
        }
        for (std::size_t l = 0; l < loops; ++l) {
            ++tried;
            double loop = 1;
            if (problem.fixed_loop) loop = static_cast<double>(problem.fixed_loop);
            if (!problem.loop_tiles.empty()) {
                tiles[0] = static_cast<double>(problem.loop_tiles[l]);
                loop = static_cast<double>(problem.looped_extent / problem.loop_tiles[l]);
            }
            if (blocks > device_.blocks) continue;
            double shared = 0;
            for (const auto &set : problem.alive) {
                double bytes = 0;
                for (const auto &[elements, each] : set) bytes += elements.at(tiles) * each;
                shared = std::max(shared, bytes);
            }
            if (shared > device_.shared_bytes) continue;
            double registers = 0;
            for (const Product &accumulator : problem.accumulators) registers += 4 * accumulator.at(tiles);
            if (registers > device_.register_bytes) continue;
            ++fitting;
            double traffic = 0, matrix_flops = 0, vector_flops = 0;
            for (const Problem::Moved &moved : problem.moved)
                traffic += moved.elements.at(tiles) * moved.bytes * (moved.repeats ? loop : 1);
            for (const Problem::Work &work : problem.work) {
                const double times = work.repeats ? loop : 1;
                if (work.matrix)
                    matrix_flops += times * 2 * work.batch.at(tiles) * std::max(16.0, work.rows.at(tiles)) *
                                    std::max(16.0, work.inner.at(tiles)) * std::max(16.0, work.columns.at(tiles));
                else vector_flops += times * work.each * work.elements.at(tiles);
            }
            traffic *= blocks;
            // Multiprocessors without a block in the last wave do nothing; fewer than half of them leave bandwidth idle.
            const double wave = std::ceil(blocks / multiprocessors) * multiprocessors / blocks;
            const double idle = std::max(1.0, 0.5 * multiprocessors / blocks);
            const double moving =
                std::max(problem.unique_bytes / device_.dram_bytes_per_s, traffic / device_.l2_bytes_per_s) * idle;
            const double computing =
                std::max(matrix_flops * blocks / device_.matrix_flops, vector_flops * blocks / device_.vector_flops) * wave;
            const double passes = std::ceil(blocks / multiprocessors) * loop * device_.pass_s;
            const double seconds = std::max({moving, computing, passes}) + device_.launch_s;
            if (seconds >= best_cost.seconds) continue;
            best_cost = {seconds, problem.unique_bytes, traffic, (matrix_flops + vector_flops) * blocks, shared, {}};
            best_cost.schedule.cuts.fill(1);
            for (std::size_t i = 0; i < pick.size(); ++i)
                best_cost.schedule.cuts[problem.open[i]] = sizes_.extents[problem.open[i]] / problem.tiles[i][pick[i]];
            best_cost.schedule.loop = static_cast<std::int64_t>(loop);
            best_cost.schedule.split = split;
        }
        more = false;
        for (std::size_t i = 0; i < pick.size() && !more; ++i) {
            more = pick[i] + 1 < problem.tiles[i].size();
            pick[i] = more ? pick[i] + 1 : 0;
        }
    }
    return best_cost;
}

} // namespace tilesmith
