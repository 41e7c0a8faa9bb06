#include "schedule.hpp"

#include <algorithm>
#include <cmath>
#include <optional>

namespace tilesmith {
namespace {

constexpr std::int64_t kLeastMatrix = 16; // a side of the smallest matrix instruction
constexpr std::int64_t kLargestTile = 512;
constexpr double kFunctionFlops = 8; // of an exponential or its like
constexpr double kAccumulatorBytes = 4;
constexpr double kRounded = 1 - 1e-12; // a bound must not exceed what it bounds by how products are rounded
constexpr Bases kEvery = ~Bases{0};

// Lengths of tiles. Place 0 is the loop's, place b that of base b.
using Tiles = std::array<double, kMaxBases + 1>;

// A number of elements: a constant times the tiles whose bits are set.
struct Product {
    double constant = 1;
    std::uint32_t tiles = 0;

    double at(const Tiles &lengths) const {
        double product = constant;
        for (std::uint32_t left = tiles; left; left &= left - 1)
            product *= lengths[static_cast<std::size_t>(__builtin_ctz(left))];
        return product;
    }
};

// What a tiling costs, with the tiles left open.
struct Problem {
    struct Matrix {
        Product rows, columns, inner, batch;
        bool repeats = false;
    };
    struct Elements {
        Product count;
        double each = 0; // operations, or bytes
        bool repeats = false;
    };

    std::vector<Base> open;                       // bases along which blocks lie
    std::vector<std::vector<std::int64_t>> tiles; // of each
    std::vector<std::int64_t> loop_tiles;         // none without a loop, or where its length is fixed
    std::int64_t looped_extent = 1;
    std::int64_t fixed_loop = 0;
    std::int64_t split = 1; // blocks along a base whose sum is split

    std::vector<Matrix> products;
    std::vector<Elements> work, moved;
    std::vector<std::vector<Elements>> alive; // values that are in shared memory at once
    std::vector<Product> accumulators;
    double unique_bytes = 0;
    double least_matrix = 0; // operations of matrix products, each element once
};

// Tiles of a dimension: powers of two that divide it, and the whole where it is short.
std::vector<std::int64_t> tiles_of(std::int64_t extent, bool matrix) {
    const std::int64_t least = matrix ? std::min(kLeastMatrix, extent) : 1;
    std::vector<std::int64_t> tiles;
    for (std::int64_t tile = 1; tile <= std::min(extent, kLargestTile); tile *= 2)
        if (tile >= least && extent % tile == 0) tiles.push_back(tile);
    if (extent <= 2 * kLargestTile && std::ranges::find(tiles, extent) == tiles.end()) tiles.push_back(extent);
    for (std::int64_t tile = kLargestTile; tiles.empty(); --tile)
        if (extent % tile == 0) tiles.push_back(tile);
    return tiles;
}

// The extent of some parts of a base: all of them, the grid's alone, or what the grid leaves.
std::int64_t extent_of(unsigned parts, unsigned all, std::int64_t whole, std::int64_t split) {
    if (!parts) return 1;
    if (parts == all) return whole;
    return parts == kInGrid ? split : whole / split;
}

} // namespace

// Makes the problem of an implementation.
class Scheduler::Setup {
  public:
    Setup(const Scheduler &scheduler, const Kernels &kernels, const Implementation &made, const Signature &signature,
          std::int64_t split)
        : scheduler_(scheduler), space_(scheduler.space_), sizes_(scheduler.sizes_), kernels_(kernels), made_(made),
          signature_(signature), split_(split), bases_(space_.program().bases()), values_(replay(space_, kernels, made)) {}

    // None where the numbers of parts do not divide what they are parts of.
    std::optional<Problem> run() {
        if (!divides()) return std::nullopt;
        problem_.split = made_.walk.split ? split_ : 1;
        look_at_steps();
        open_bases();
        if (made_.walk.loop && !loop()) return std::nullopt;
        moves();
        works();
        lives();
        return std::move(problem_);
    }

  private:
    unsigned all(Base base) const { return space_.program().parts[base]; }
    const Step &step(std::size_t value) const { return kernels_.steps[made_.first_step + value - values_.loads]; }
    Free tile_of(std::uint8_t operand) const { return operand == Step::kNoOperand ? 0 : values_.tiles[operand]; }

    template <typename Visit> void each_base(const Visit &visit) const {
        for (int b = 1; b <= bases_; ++b) visit(static_cast<Base>(b));
    }

    bool divides() const {
        const Base own = made_.walk.split;
        if (own && (split_ < 2 || sizes_.extents[own] % split_)) return false;
        bool divides = true;
        for (const Class c : values_.classes)
            each_base([&](Base base) {
                const unsigned parts = parts_of(space_.free(c), base);
                divides &= !parts || parts == all(base) || sizes_.extents[base] % split_ == 0;
            });
        return divides;
    }

    bool accumulates(std::size_t value) const {
        return value >= values_.loads &&
               (step(value).kind == StepKind::accumulate || step(value).kind == StepKind::accumulate_sum);
    }

    void look_at_steps() {
        for (std::size_t v = values_.loads; v < values_.classes.size(); ++v) {
            const Free before = tile_of(step(v).a) | tile_of(step(v).b);
            each_base([&](Base base) {
                if (!parts_of(before, base)) return;
                if (!parts_of(values_.tiles[v], base)) removed_ |= bit(base);
                if (step(v).kind == StepKind::matmul) matrix_ |= bit(base);
            });
            if (step(v).kind == StepKind::apply) removed_ |= bit(space_.program().functions[step(v).arg].base) & ~Bases{1};
        }
    }

    // Blocks lie along a base that every output has whole and that no step removes.
    void open_bases() {
        each_base([&](Base base) {
            if (base == made_.walk.loop || base == made_.walk.split || (removed_ & bit(base))) return;
            const auto stored = [&](Tensor t) { return t == kNoTensor || parts_of(space_.free(class_of(t)), base) == all(base); };
            const auto undivided = [&](Free tile) { return !parts_of(tile, base) || parts_of(tile, base) == all(base); };
            if (!std::ranges::all_of(signature_.outputs, stored) || !std::ranges::all_of(values_.tiles, undivided)) return;
            problem_.open.push_back(base);
            problem_.tiles.push_back(tiles_of(sizes_.extents[base], matrix_ & bit(base)));
            open_ |= bit(base);
        });
    }

    // It runs over what the grid leaves of a base; where a load has the grid's parts alone, over those, one at a time.
    bool loop() {
        const Base base = made_.walk.loop;
        bool by_part = false;
        for (std::size_t i = 0; i < values_.loads; ++i) {
            const unsigned looped = parts_of(space_.free(values_.classes[i]) & values_.looped, base);
            by_part |= looped && !(looped & kInLoop);
        }
        problem_.looped_extent = sizes_.extents[base] / problem_.split;
        if (by_part) {
            problem_.fixed_loop = split_;
            return split_ > 1;
        }
        problem_.loop_tiles = tiles_of(problem_.looped_extent, matrix_ & bit(base));
        // A loop of one pass is the kernel without a loop.
        std::erase(problem_.loop_tiles, problem_.looped_extent);
        return !problem_.loop_tiles.empty();
    }

    Product product(Free tile, Bases only) const {
        Product product;
        each_base([&](Base base) {
            const unsigned parts = parts_of(tile, base);
            if (!parts || !(only & bit(base))) return;
            if (open_ & bit(base)) product.tiles |= bit(base);
            else if (base == made_.walk.loop && (parts & kInBlock) && !problem_.fixed_loop) product.tiles |= 1;
            else if (base == made_.walk.loop && (parts & kInBlock))
                product.constant *= static_cast<double>(problem_.looped_extent / problem_.fixed_loop);
            else if (base == made_.walk.split) product.constant *= static_cast<double>(sizes_.extents[base] / split_);
            else product.constant *= static_cast<double>(extent_of(parts, all(base), sizes_.extents[base], split_));
        });
        return product;
    }

    double element_bytes(std::size_t value) const {
        return value < values_.loads ? scheduler_.element_bytes(values_.classes[value]) : sizes_.element_bytes;
    }

    void moves() {
        for (std::size_t i = 0; i < values_.loads; ++i)
            problem_.moved.push_back(
                {product(values_.tiles[i], kEvery), element_bytes(i), values_.phases[i] == Phase::varying});
        for (std::size_t s = 0; s < kMaxStores; ++s)
            if (signature_.outputs[s] != kNoTensor)
                problem_.moved.push_back({product(values_.tiles[made_.stores[s]], kEvery), sizes_.element_bytes, false});
        problem_.unique_bytes = scheduler_.bytes(kernels_, signature_, split_);
    }

    void works() {
        for (std::size_t v = values_.loads; v < values_.classes.size(); ++v) {
            const bool repeats = accumulates(v) || values_.phases[v] == Phase::varying;
            const Free x = tile_of(step(v).a), y = tile_of(step(v).b);
            if (accumulates(v) || step(v).kind == StepKind::matmul)
                problem_.accumulators.push_back(product(values_.tiles[v], kEvery));
            if (step(v).kind != StepKind::matmul) {
                problem_.work.push_back({product(x | y, kEvery), operations(step(v)), repeats});
                continue;
            }
            Bases left = 0, right = 0;
            each_base([&](Base base) {
                if (parts_of(x, base)) left |= bit(base);
                if (parts_of(y, base)) right |= bit(base);
            });
            const Bases over = space_.sets()[step(v).arg];
            const Free operands = space_.free(values_.classes[step(v).a]) | space_.free(values_.classes[step(v).b]);
            problem_.least_matrix += 2 * scheduler_.elements(operands, split_);
            problem_.products.push_back({product(x, left & ~right), product(y, right & ~left), product(x, over),
                                         product(x, left & right & ~over), repeats});
        }
    }

    double operations(const Step &step) const {
        if (step.kind == StepKind::div) return kFunctionFlops;
        if (step.kind != StepKind::apply) return 1;
        const Fn fn = space_.program().functions[step.arg].fn;
        return fn == Fn::scale || fn == Fn::shift || fn == Fn::square ? 1 : kFunctionFlops;
    }

    // Loads and accumulators live as long as the loop; what is computed until its last use, and what the loop does not
    // change until its end. The checker of µGraphs counts alike.
    void lives() {
        const std::size_t count = values_.classes.size();
        std::vector<std::size_t> last(count, 0);
        std::size_t loop_end = values_.loads;
        for (std::size_t v = values_.loads; v < count; ++v) {
            last[step(v).a] = v;
            if (step(v).b != Step::kNoOperand) last[step(v).b] = v;
            if (values_.phases[v] == Phase::varying || accumulates(v)) loop_end = v;
        }
        for (std::size_t s = 0; s < kMaxStores; ++s)
            if (signature_.outputs[s] != kNoTensor) last[made_.stores[s]] = count;

        std::vector<std::uint32_t> lives;
        for (std::size_t now = values_.loads; now <= count; ++now) {
            std::uint32_t set = 0;
            for (std::size_t v = 0; v < count; ++v) {
                const bool held = v < values_.loads || accumulates(v) || values_.phases[v] == Phase::invariant;
                const bool begun = v < values_.loads || accumulates(v) || v <= now;
                if (begun && now <= (held ? std::max(last[v], loop_end) : last[v])) set |= 1u << v;
            }
            lives.push_back(set);
        }
        for (std::size_t i = 0; i < lives.size(); ++i) {
            bool covered = false;
            for (std::size_t other = 0; other < lives.size(); ++other)
                covered |= other != i && (lives[i] & ~lives[other]) == 0 && (lives[i] != lives[other] || other < i);
            if (covered) continue;
            auto &set = problem_.alive.emplace_back();
            for (std::size_t v = 0; v < count; ++v)
                if (lives[i] >> v & 1)
                    set.push_back({product(values_.tiles[v], kEvery), accumulates(v) ? kAccumulatorBytes : element_bytes(v), false});
        }
    }

    const Scheduler &scheduler_;
    const Space &space_;
    const Sizes &sizes_;
    const Kernels &kernels_;
    const Implementation &made_;
    const Signature &signature_;
    std::int64_t split_;
    int bases_;
    Replayed values_;
    Bases removed_ = 0, matrix_ = 0, open_ = 0; // that steps remove; of matrix products; along which blocks lie
    Problem problem_;
};

namespace {

// One tiling of a problem: what it costs, or that it does not fit.
Cost cost_of(const Problem &problem, const Device &device, const Tiles &tiles, double blocks, double loop) {
    Cost cost;
    if (blocks > device.blocks) return cost;
    for (const auto &set : problem.alive) {
        double bytes = 0;
        for (const Problem::Elements &value : set) bytes += value.count.at(tiles) * value.each;
        cost.shared = std::max(cost.shared, bytes);
    }
    if (cost.shared > device.shared_bytes) return cost;
    double registers = 0;
    for (const Product &accumulator : problem.accumulators) registers += kAccumulatorBytes * accumulator.at(tiles);
    if (registers > device.register_bytes) return cost;

    double matrix = 0, vector = 0;
    for (const Problem::Elements &moved : problem.moved)
        cost.traffic += blocks * moved.count.at(tiles) * moved.each * (moved.repeats ? loop : 1);
    for (const Problem::Elements &work : problem.work)
        vector += blocks * work.count.at(tiles) * work.each * (work.repeats ? loop : 1);
    for (const Problem::Matrix &product : problem.products) {
        const auto side = [&](const Product &length) { return std::max(double{kLeastMatrix}, length.at(tiles)); };
        matrix += blocks * 2 * product.batch.at(tiles) * side(product.rows) * side(product.columns) * side(product.inner) *
                  (product.repeats ? loop : 1);
    }
    cost.bytes = problem.unique_bytes;
    cost.flops = matrix + vector;
    // Multiprocessors without a block in the last wave do nothing; fewer than half of them leave bandwidth idle.
    const double waves = std::ceil(blocks / device.multiprocessors);
    const double busy = blocks / (waves * device.multiprocessors);
    const double reading = std::min(1.0, 2 * blocks / device.multiprocessors);
    const double moving = std::max(cost.bytes / device.dram_bytes_per_s, cost.traffic / device.l2_bytes_per_s) / reading;
    const double computing = std::max(matrix / device.matrix_flops, vector / device.vector_flops) / busy;
    cost.seconds = std::max({moving, computing, waves * loop * device.pass_s}) + device.launch_s;
    return cost;
}

} // namespace

Scheduler::Scheduler(const Space &space, const Sizes &sizes, const Device &device)
    : space_(space), sizes_(sizes), device_(device) {
    for (std::size_t i = 0; i < space.table().inputs.size(); ++i)
        if (space.table().inputs[i] != kNoClass) input_bytes_.emplace_back(space.table().inputs[i], sizes.input_bytes[i]);
}

double Scheduler::element_bytes(Class c) const {
    for (const auto &[input, bytes] : input_bytes_)
        if (input == c) return bytes;
    return sizes_.element_bytes;
}

// Whether a tensor has only some of the parts of a base: the sums of a split, one for every part.
bool Scheduler::partial(Tensor t) const {
    if (t == kNoTensor) return false;
    for (int b = 1; b <= space_.program().bases(); ++b) {
        const unsigned parts = parts_of(space_.free(class_of(t)), static_cast<Base>(b));
        if (parts && parts != space_.program().parts[static_cast<std::size_t>(b)]) return true;
    }
    return false;
}

bool Scheduler::depends_on_split(const Kernels &kernels, const Implementation &made, const Signature &signature) const {
    const auto is_partial = [&](Tensor t) { return partial(t); };
    return made.walk.split || std::ranges::any_of(kernels.inputs, is_partial) ||
           std::ranges::any_of(signature.outputs, is_partial);
}

double Scheduler::elements(Free free, std::int64_t split) const {
    double elements = 1;
    for (int b = 1; b <= space_.program().bases(); ++b) {
        const Base base = static_cast<Base>(b);
        elements *= static_cast<double>(
            extent_of(parts_of(free, base), space_.program().parts[base], sizes_.extents[base], split));
    }
    return elements;
}

double Scheduler::bytes(const Kernels &kernels, const Signature &signature, std::int64_t split) const {
    double bytes = 0;
    const auto count = [&](Tensor t) {
        if (t != kNoTensor) bytes += elements(space_.free(class_of(t)), split) * element_bytes(class_of(t));
    };
    std::ranges::for_each(kernels.inputs, count);
    std::ranges::for_each(signature.outputs, count);
    return bytes;
}

// Operations of the matrix products, each element once: blocks may repeat them, but never leave one out.
double Scheduler::products(const Kernels &kernels, const Implementation &made, std::int64_t split) const {
    const std::span<const Step> steps(kernels.steps.data() + made.first_step, made.steps);
    if (std::ranges::none_of(steps, [](const Step &step) { return step.kind == StepKind::matmul; })) return 0;
    const Replayed values = replay(space_, kernels, made);
    double operations = 0;
    for (const Step &step : steps)
        if (step.kind == StepKind::matmul)
            operations += 2 * elements(space_.free(values.classes[step.a]) | space_.free(values.classes[step.b]), split);
    return operations;
}

double Scheduler::bound(const Kernels &kernels, const Signature &signature, std::int64_t split) const {
    double least = Cost::kNever;
    for (const Implementation &made : signature.implementations) least = std::min(least, products(kernels, made, split));
    const double moving = bytes(kernels, signature, split) / device_.dram_bytes_per_s;
    return std::max(moving, least / device_.matrix_flops * kRounded) + device_.launch_s;
}

Cost Scheduler::best(const Kernels &kernels, const Implementation &made, const Signature &signature, std::int64_t split) {
    const std::optional<Problem> problem = Setup(*this, kernels, made, signature, split).run();
    Cost best;
    if (!problem) return best;
    // No tiling is faster than this, and the first that is as fast is taken.
    const double moving = problem->unique_bytes / device_.dram_bytes_per_s;
    const double least = std::max(moving, problem->least_matrix / device_.matrix_flops * kRounded) + device_.launch_s;
    Tiles tiles{};
    std::vector<std::size_t> pick(problem->open.size(), 0);
    const std::size_t loops = std::max<std::size_t>(1, problem->loop_tiles.size());
    for (bool more = true; more && best.seconds > least;) {
        double blocks = static_cast<double>(problem->split);
        for (std::size_t i = 0; i < pick.size(); ++i) {
            const std::int64_t tile = problem->tiles[i][pick[i]];
            tiles[problem->open[i]] = static_cast<double>(tile);
            blocks *= static_cast<double>(sizes_.extents[problem->open[i]] / tile);
        }
        for (std::size_t l = 0; l < loops; ++l) {
            ++tried;
            std::int64_t loop = std::max<std::int64_t>(1, problem->fixed_loop);
            if (!problem->loop_tiles.empty()) {
                tiles[0] = static_cast<double>(problem->loop_tiles[l]);
                loop = problem->looped_extent / problem->loop_tiles[l];
            }
            const Cost cost = cost_of(*problem, device_, tiles, blocks, static_cast<double>(loop));
            fitting += cost.fits();
            // Longer tiles of the loop take more room still.
            if (!cost.fits()) break;
            if (cost.seconds >= best.seconds) continue;
            best = cost;
            best.schedule.cuts.fill(1);
            for (std::size_t i = 0; i < pick.size(); ++i)
                best.schedule.cuts[problem->open[i]] = sizes_.extents[problem->open[i]] / problem->tiles[i][pick[i]];
            best.schedule.loop = loop;
            best.schedule.split = split;
        }
        more = false;
        for (std::size_t i = 0; i < pick.size() && !more; ++i) {
            more = pick[i] + 1 < problem->tiles[i].size();
            pick[i] = more ? pick[i] + 1 : 0;
        }
    }
    return best;
}

} // namespace tilesmith
