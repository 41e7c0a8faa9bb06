#include <algorithm>
#include <functional>
#include <stdexcept>

#include "concrete.hpp"

namespace tilesmith::concrete {
namespace {

using Imap = std::array<std::int8_t, kGridRank>;

void demand(bool good, const std::string &what) {
    if (!good) throw std::invalid_argument(what);
}

// All degrees that a sum of a tile can have: its extents are divisors of the program's.
std::vector<std::int64_t> degrees_of(const Problem &problem, const Rules &rules) {
    std::vector<std::int64_t> extents;
    for (const std::vector<Shape> *shapes : {&problem.inputs, &problem.outputs})
        for (const Shape &shape : *shapes)
            for (int i = 0; i < shape.rank; ++i) extents.push_back(shape.extents[static_cast<std::size_t>(i)]);
    extents.insert(extents.end(), rules.loops.begin(), rules.loops.end());
    return divisors(extents);
}

Theory theory_of(const Problem &problem) {
    Theory theory;
    theory.inputs = problem.inputs.size();
    theory.primes = problem.degrees.primes;
    describe(theory, problem.degrees.program.functions, problem.names);
    return theory;
}

// Whether the grid can cut a tensor this way, and the loop after it; the tile that is left.
bool cut(Shape &tile, const std::array<std::int32_t, kGridRank> &grid, const Imap &imap) {
    for (std::size_t axis = 0; axis < kGridRank; ++axis) {
        if (imap[axis] < 0) continue;
        std::int32_t &extent = tile.extents[static_cast<std::size_t>(imap[axis])];
        if (grid[axis] == 1 || imap[axis] >= tile.rank || extent % grid[axis]) return false;
        extent /= grid[axis];
    }
    return true;
}

} // namespace

std::int64_t Shape::elements() const {
    std::int64_t product = 1;
    for (int i = 0; i < rank; ++i) product *= extents[static_cast<std::size_t>(i)];
    return product;
}

Space::Space(Problem problem, Rules rules, const TableLimits &limits)
    : problem_(std::move(problem)), rules_(std::move(rules)),
      table_(problem_.degrees, limits, degrees_of(problem_, rules_)), theory_(theory_of(problem_)) {
    demand(!problem_.inputs.empty() && problem_.inputs.size() == problem_.degrees.program.inputs.size(),
           "the inputs of the problem and of its table differ");
    demand(problem_.outputs.size() == problem_.degrees.program.outputs.size(), "the outputs of the problem and of its table differ");
    demand(problem_.names.size() == problem_.degrees.program.functions.size(), "not every function has a name");
    for (const std::vector<Shape> *shapes : {&problem_.inputs, &problem_.outputs})
        for (const Shape &shape : *shapes) {
            demand(shape.rank >= 1 && shape.rank <= kTileRank, "a tensor has no dimensions, or more than " + std::to_string(kTileRank));
            for (int i = 0; i < shape.rank; ++i)
                demand(shape.extents[static_cast<std::size_t>(i)] >= 1, "a tensor has an extent below 1");
        }
    demand(rules_.block_ops >= 1 && rules_.block_ops <= kMaxTiles, "block operators: 1 to " + std::to_string(kMaxTiles));
    demand(rules_.loads >= 1 && rules_.loads <= kMaxLoads, "inputs of a kernel: 1 to " + std::to_string(kMaxLoads));
    demand(rules_.stores >= 1 && rules_.stores <= kMaxSaved, "outputs of a kernel: 1 to " + std::to_string(kMaxSaved));
    demand(rules_.graph_defined >= 0 && rules_.graph_defined <= kMaxBlocks, "graph-defined kernels: 0 to " + std::to_string(kMaxBlocks));
    demand(rules_.kernel_ops >= 1 && rules_.kernel_ops <= kMaxNodes, "kernels: 1 to " + std::to_string(kMaxNodes));
    demand(rules_.oracle_every >= 1, "the oracle is asked at every first level at the most");
    demand(static_cast<int>(problem_.inputs.size()) + kMaxSaved * rules_.kernel_ops <= kMaxTensors, "too many inputs and kernels");
    for (const std::int32_t n : rules_.tiles) demand(n >= 1, "a tile has an extent below 1");
    for (const std::int32_t n : rules_.loops) demand(n >= 1, "a loop has a range below 1");

    list_operators();
    list_possible();
}

void Space::list_operators() {
    const auto add = [&](Kind kind, std::size_t arg = 0) { operators_.push_back({kind, static_cast<std::uint8_t>(arg)}); };
    add(Kind::matmul);
    if (problem_.transposes) add(Kind::matmul_transposed);
    add(Kind::add);
    if (problem_.subtracts) add(Kind::sub);
    add(Kind::mul);
    add(Kind::div);
    binary_operators_ = operators_.size();
    for (const int function : problem_.unary) {
        demand(function >= 0 && static_cast<std::size_t>(function) < problem_.names.size() && function < 256, "no such function");
        add(Kind::apply, static_cast<std::size_t>(function));
    }
    kernel_operators_ = operators_.size();
    for (std::size_t norm = 0; norm < problem_.norms.size(); ++norm) add(Kind::norm, norm);
    if (!rules_.as_coded)
        for (std::size_t axis = 0; axis < kTileRank; ++axis) add(Kind::sum, axis);
    add(Kind::accumulate);
    add(Kind::accumulate_sum);
    for (std::size_t norm = 0; norm < problem_.norms.size(); ++norm) add(Kind::accumulate_root, norm);
    demand(operators_.size() < 64, "too many operators");
}

void Space::list_possible() {
    constexpr std::size_t kMostClasses = 4096;
    const std::size_t classes = table_.table().classes();
    if (classes > kMostClasses) return;
    possible_.resize(classes);
    joins_.resize(classes * classes);
    const auto allowed = [&](const Operator &op, Class c) {
        switch (op.kind) {
        case Kind::apply: return table_.apply(c, op.arg) != kNoClass;
        case Kind::norm: return table_.join(Rule::div, c, root_of(problem_.norms[op.arg], c)) != kNoClass;
        case Kind::accumulate_root: return root_of(problem_.norms[op.arg], c) != kNoClass;
        default: return true; // sums, as far as their degrees allow
        }
    };
    for (std::size_t c = 0; c < classes; ++c)
        for (std::size_t code = binary_operators_; code < operators_.size(); ++code)
            if (allowed(operators_[code], static_cast<Class>(c))) possible_[c] |= std::uint64_t{1} << code;
    for (const Row &row : table_.table().rows)
        for (std::size_t code = 0; code < binary_operators_; ++code) {
            const Kind kind = operators_[code].kind;
            const Rule rule = kind == Kind::add   ? Rule::add
                              : kind == Kind::sub ? Rule::sub
                              : kind == Kind::div ? Rule::div
                                                  : Rule::mul;
            if (row.rule != rule) continue;
            joins_[row.a * classes + row.b] |= static_cast<std::uint8_t>(1u << code);
            if (rule == Rule::add || rule == Rule::mul) joins_[row.b * classes + row.a] |= static_cast<std::uint8_t>(1u << code);
        }
}

const std::vector<Setting> &Space::settings(const std::vector<Shape> &shapes) const {
    const std::scoped_lock lock(mutex_);
    auto &known = settings_[shapes];
    if (!known) known = std::make_unique<const std::vector<Setting>>(enumerate(shapes));
    return *known;
}

std::vector<Setting> Space::enumerate(const std::vector<Shape> &shapes) const {
    std::vector<std::int32_t> extents;
    for (const Shape &shape : shapes) extents.insert(extents.end(), shape.extents.begin(), shape.extents.begin() + shape.rank);
    std::ranges::sort(extents);
    extents.erase(std::unique(extents.begin(), extents.end()), extents.end());
    const bool one_rank = std::ranges::all_of(shapes, [&](const Shape &shape) { return shape.rank == shapes[0].rank; });
    const std::int32_t batch = one_rank && shapes[0].rank >= 2 ? shapes[0].extents[0] : -1;

    using Grid = std::array<std::int32_t, kGridRank>;
    std::vector<Grid> grids;
    const auto offer = [&](const Grid &grid) {
        const std::int64_t blocks = std::int64_t{grid[0]} * grid[1] * grid[2];
        if (blocks >= rules_.least_blocks && blocks <= rules_.most_blocks) grids.push_back(grid);
    };
    for (const std::int32_t tile : rules_.tiles)
        for (const std::int32_t extent : extents)
            if (extent % tile == 0) {
                offer({extent / tile, 1, 1});
                if (rules_.heads && batch > 0) offer({batch, extent / tile, 1});
            }
    if (rules_.as_coded && rules_.heads && shapes.size() > 2 && batch > 0) offer({batch, 16, 4});
    if (batch > 0 && batch <= rules_.most_blocks) grids.push_back({batch, 1, 1});
    std::ranges::sort(grids);
    grids.erase(std::unique(grids.begin(), grids.end()), grids.end());

    std::vector<Imap> imaps{{0, -1, 1}, {0, 1, -1}, {0, 2, -1}, {-1, 1, -1}};
    if (!rules_.as_coded || !rules_.heads) imaps.insert(imaps.end(), {{-1, -1, -1}, {1, -1, -1}, {0, -1, -1}});

    std::vector<Setting> all;
    std::array<Shape, kMaxLoads> tiles;
    Setting setting;
    const std::size_t loads = shapes.size();

    const auto fits = [&] {
        std::int64_t bytes = 0;
        for (std::size_t i = 0; i < loads; ++i) {
            const std::int64_t looped = setting.fmaps[i] < 0 ? 1 : setting.loop;
            bytes += tiles[i].elements() / looped * problem_.element_bytes;
        }
        return bytes <= rules_.shared_bytes;
    };
    const auto loops = [&] {
        const bool looped = std::any_of(setting.fmaps.begin(), setting.fmaps.begin() + static_cast<std::ptrdiff_t>(loads),
                                        [](std::int8_t fmap) { return fmap >= 0; });
        for (const std::int32_t range : looped ? rules_.loops : std::vector<std::int32_t>{1}) {
            setting.loop = range;
            const bool whole = std::ranges::all_of(std::span(tiles).first(loads), [&](const Shape &tile) {
                const std::int8_t fmap = setting.fmaps[static_cast<std::size_t>(&tile - tiles.data())];
                return fmap < 0 || tile.extents[static_cast<std::size_t>(fmap)] % range == 0;
            });
            if (!whole) continue;
            if (fits()) all.push_back(setting);
            else ++unfit_;
        }
    };
    const std::function<void(std::size_t)> fmap = [&](std::size_t i) {
        if (i == loads) return loops();
        for (std::int8_t dim = -1; dim < std::min(shapes[i].rank, 3); ++dim) {
            if (dim >= 0 && shapes[i].extents[static_cast<std::size_t>(dim)] == 1) continue;
            setting.fmaps[i] = dim;
            fmap(i + 1);
        }
    };
    const std::function<void(std::size_t)> imap = [&](std::size_t i) {
        if (i == loads) {
            for (std::size_t axis = 0; axis < kGridRank; ++axis) {
                const bool used = std::any_of(setting.imaps.begin(), setting.imaps.begin() + static_cast<std::ptrdiff_t>(loads),
                                              [&](const Imap &map) { return map[axis] >= 0; });
                if (setting.grid[axis] > 1 && !used) return;
            }
            return fmap(0);
        }
        for (const Imap &map : imaps) {
            tiles[i] = shapes[i];
            if (!cut(tiles[i], setting.grid, map)) continue;
            setting.imaps[i] = map;
            imap(i + 1);
        }
    };
    for (const Grid &grid : grids) {
        setting.grid = grid;
        imap(0);
    }
    return all;
}

} // namespace tilesmith::concrete
