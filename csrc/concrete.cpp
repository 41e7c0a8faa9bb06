#include "concrete.hpp"

#include <algorithm>
#include <bit>
#include <stdexcept>

namespace tilesmith::concrete {
namespace {

// A value of a block is of one iteration, the same in all, or there once they are over. Two differ by 2 only where one
// is of an iteration and the other comes after the loop.
enum : std::uint8_t { kVarying, kInvariant, kAfter };

constexpr std::size_t kBlockCode = 127;
constexpr std::uint64_t kPollMask = 1023;
constexpr std::size_t kMostPrefixes = 500'000;

constexpr Key slot(std::size_t place, std::uint8_t value) { return Key{value + 1u} << (56 - 8 * place); }

bool broadcast(const Shape &x, const Shape &y, Shape &made) {
    if (x.rank != y.rank) return false;
    made.rank = x.rank;
    for (std::size_t i = 0; i < static_cast<std::size_t>(x.rank); ++i) {
        const std::int32_t a = x.extents[i], b = y.extents[i];
        if (a != b && a != 1 && b != 1) return false;
        made.extents[i] = std::max(a, b);
    }
    return true;
}

bool multiply(const Shape &x, const Shape &y, bool transposed, bool inside, Shape &made) {
    if (x.rank != y.rank || x.rank < 2) return false;
    const auto rank = static_cast<std::size_t>(x.rank);
    const std::int32_t inner = transposed ? y.extents[rank - 1] : y.extents[rank - 2];
    if (x.extents[rank - 1] != inner) return false;
    // A block multiplies matrices only.
    for (std::size_t i = 0; i + 2 < rank; ++i)
        if (x.extents[i] != y.extents[i] || (inside && x.extents[i] != 1)) return false;
    made = x;
    made.extents[rank - 1] = transposed ? y.extents[rank - 2] : y.extents[rank - 1];
    return true;
}

// Expressions are numbered by each worker for itself.
void translate(State &state, const Expressions &from, Expressions &to) {
    const auto each = [&](Value &value) { value.expression = to.taken(from, value.expression); };
    std::for_each_n(state.graph.tensors.begin(), state.graph.count, each);
    if (state.inside) std::for_each_n(state.block.tiles.begin(), state.block.count, each);
}

Frontier translated(Frontier states, const Expressions &from, Expressions &to) {
    State state = states.base();
    translate(state, from, to);
    Frontier made(state);
    while (states.pop(state)) {
        translate(state, from, to);
        made.push(state);
    }
    return made;
}

// Who need not wait does not look at the clock.
template <typename Wait> void waited(Track &track, double &lock_s, const Wait &wait) {
    const Activity before = track.to(Activity::waiting);
    const double start_s = track.since_s();
    wait();
    track.to(before);
    lock_s += track.since_s() - start_s;
}

} // namespace

void Counts::operator+=(const Counts &other) {
    states += other.states;
    candidates += other.candidates;
    tested += other.tested;
    shape += other.shape;
    phase += other.phase;
    memory += other.memory;
    oracle += other.oracle;
    bound += other.bound;
    unsound += other.unsound;
    roots += other.roots;
    frontier = std::max(frontier, other.frontier);
    calls += other.calls;
    hits += other.hits;
    unknown += other.unknown;
    only_oracle += other.only_oracle;
    only_table += other.only_table;
    lock_s += other.lock_s;
    given += other.given;
    taken += other.taken;
    times += other.times;
    cpu_s += other.cpu_s;
    for (std::size_t i = 0; i < depths.size(); ++i) depths[i] += other.depths[i];
}

std::optional<bool> SharedAnswers::find(const std::string &formula, Track &track, double &lock_s) {
    {
        std::shared_lock lock(mutex_, std::try_to_lock);
        if (!lock) waited(track, lock_s, [&] { lock.lock(); });
        const auto found = answers_.find(formula);
        if (found != answers_.end() && found->second != Known::asked) return found->second == Known::yes;
    }
    std::unique_lock lock(mutex_, std::try_to_lock);
    if (!lock) waited(track, lock_s, [&] { lock.lock(); });
    const auto [place, fresh] = answers_.try_emplace(formula, Known::asked);
    if (fresh) return {};
    const Known &known = place->second; // stays where it is when the map grows
    if (known == Known::asked) waited(track, lock_s, [&] { answered_.wait(lock, [&] { return known != Known::asked; }); });
    return known == Known::yes;
}

void SharedAnswers::put(const std::string &formula, bool answer, Track &track, double &lock_s) {
    {
        std::unique_lock lock(mutex_, std::try_to_lock);
        if (!lock) waited(track, lock_s, [&] { lock.lock(); });
        answers_[formula] = answer ? Known::yes : Known::no;
    }
    answered_.notify_all();
}

// The beginning --------------------------------------------------------------------------------------------------------

Worker::Worker(const Space &space, const Asking &asking, SharedAnswers *shared, Control &control, bool timeline)
    : space_(space), rules_(space.rules()), asking_(asking), shared_(shared), control_(control),
      track_(control, timeline), expressions_(space.problem().names) {
    for (std::size_t code = 0; code < space.binary_operators(); ++code)
        if (space.operators(true)[code].commutes()) commuting_ |= std::uint64_t{1} << code;
    if (asking_.oracle == Asked::table) return;
    if (!asking_.z3) throw std::invalid_argument("the z3 oracle needs a library");
    const std::vector<Node> &nodes = space_.problem().degrees.program.nodes;
    std::vector<Expression> values;
    const auto value = [&](int place) { return values.at(static_cast<std::size_t>(place)); };
    for (const Node &node : nodes) {
        switch (node.term) {
        case Term::input: values.push_back(expressions_.make(Expressed::input, static_cast<std::uint32_t>(node.a))); break;
        case Term::apply: values.push_back(applied(node.b, value(node.a))); break;
        case Term::add: values.push_back(expressions_.make(Expressed::add, value(node.a), value(node.b))); break;
        case Term::sub: values.push_back(expressions_.make(Expressed::sub, value(node.a), value(node.b))); break;
        case Term::mul: values.push_back(expressions_.make(Expressed::mul, value(node.a), value(node.b))); break;
        case Term::div: values.push_back(expressions_.make(Expressed::div, value(node.a), value(node.b))); break;
        default: throw std::invalid_argument("a program without dimensions has no such node");
        }
    }
    std::vector<std::string> targets;
    for (const int output : space_.problem().degrees.program.outputs)
        targets.push_back(formula(space_.theory(), expressions_, value(output)));
    z3_ = std::make_unique<Z3Oracle>(asking_.z3, axioms(space_.theory()), targets, asking_.effort);
}

Worker::Worker(const Roots &roots, const Asking &asking, SharedAnswers *shared, Control &control, bool timeline, Pool *pool)
    : Worker(roots.space(), asking, shared, control, timeline) {
    roots_ = &roots;
    pool_ = pool;
}

void Worker::begin(const KernelState &graph) {
    state_ = State{};
    state_.graph = graph;
    if (!z3_) return;
    // Expressions are numbered by each worker for itself.
    std::size_t tensor = 0;
    for (; tensor < space_.problem().inputs.size(); ++tensor)
        state_.graph.tensors[tensor].expression = expressions_.make(Expressed::input, static_cast<std::uint32_t>(tensor));
    for (std::size_t node = 0; node < graph.made; ++node, ++tensor) {
        const Step &step = graph.nodes[node];
        const Value *y = step.b == Step::kNone ? nullptr : &state_.graph.tensors[step.b];
        state_.graph.tensors[tensor].expression = expression_of({step.kind, step.arg}, state_.graph.tensors[step.a], y);
    }
}

std::vector<Found> Worker::search_root(std::size_t index, Order order, std::size_t frontier_bytes) {
    Task root;
    root.root = index;
    return search(std::move(root), order, frontier_bytes);
}

std::vector<Found> Worker::search(Task task, Order order, std::size_t frontier_bytes) {
    found_.clear();
    root_ = task.root;
    if (!task.open) {
        track_.to(Activity::busy);
        ++counts_.roots;
        const Roots::Root root = roots_->root(task.root);
        begin(root.prefix);
        if (!enter(root.sources, root.setting)) return {};
        if (order == Order::dfs) {
            depth_first();
            return std::move(found_);
        }
        task.open.emplace(state_).push(state_);
    } else {
        ++counts_.taken;
        if (z3_) task.open = translated(std::move(*task.open), task.expressions, expressions_);
        track_.to(Activity::busy);
    }
    if (order == Order::bfs) breadth_first(std::move(*task.open), frontier_bytes);
    else
        while (task.open->pop(state_)) depth_first();
    return std::move(found_);
}

// Whether this state is left to another worker: one is idle, and there is enough below the state.
bool Worker::leaves() {
    const int worth = z3_ ? 1 : 3; // operators; below three are some thousand states at the most
    if (!pool_ || !pool_->hungry()) return false;
    const Block &block = state_.blocks[state_.defined];
    const int open = state_.inside ? rules_.block_ops - block.loads - block.steps : 0;
    if (open < worth && (state_.inside || state_.defined == rules_.graph_defined)) return false;
    Frontier one(state_);
    one.push(state_);
    leave(std::move(one));
    return true;
}

// The same of half of what is left of a level, if that is enough.
bool Worker::leave_half(Frontier &level) {
    const std::size_t worth = z3_ ? 2 : 64;
    if (!pool_ || level.size() < worth || !pool_->hungry()) return false;
    leave(level.split());
    return true;
}

void Worker::leave(Frontier open) {
    const Activity before = track_.to(Activity::stealing);
    ++counts_.given;
    State first;
    open.read(first);
    Task task;
    task.root = root_;
    task.depth = {first.defined, first.inside ? first.blocks[first.defined].steps : 0};
    task.expressions = Expressions(space_.problem().names);
    task.open = z3_ ? translated(std::move(open), expressions_, task.expressions) : std::move(open);
    pool_->leave(std::move(task));
    track_.to(before);
}

void Worker::depth_first() {
    if (!arrive()) return;
    expand([this] {
        if (!leaves()) depth_first();
    });
}

void Worker::breadth_first(Frontier level, std::size_t most_bytes) {
    while (level.size() && !control_.stopped()) {
        Frontier next(level.base());
        do {
            while (leave_half(level)) {}
            level.pop(state_);
            if (!arrive()) continue;
            expand([&] {
                if (level.bytes() + next.bytes() < most_bytes) next.push(state_);
                else depth_first();
            });
        } while (level.size());
        counts_.frontier = std::max<std::uint64_t>(counts_.frontier, next.size());
        level = std::move(next);
    }
}

// A state ----------------------------------------------------------------------------------------------------------------

// Whether it can grow.
bool Worker::arrive() {
    ++counts_.states;
    ++counts_.depths[std::min<std::size_t>(depth(), kMaxDepth - 1)];
    if ((counts_.states & kPollMask) == 0) control_.poll();
    if (control_.stopped()) return false;
    if (state_.inside) {
        if (!rules_.bounded || usable()) return true;
        ++counts_.bound;
        return false;
    }
    std::vector<std::uint8_t> outputs;
    if (complete(outputs)) {
        if (state_.unsound) ++counts_.unsound;
        else record(outputs);
        return false;
    }
    return state_.graph.made < rules_.kernel_ops;
}

// An operator joins two values at the most.
bool Worker::usable() const {
    int unused = 0;
    for (std::size_t i = 0; i < state_.block.count; ++i) unused += !state_.block.tiles[i].uses;
    const Block &block = state_.blocks[state_.defined];
    return unused - rules_.stores <= rules_.block_ops - block.loads - block.steps;
}

// Predefined kernels, beginnings and ends of blocks, and their operators.
std::size_t Worker::depth() const {
    std::size_t depth = state_.graph.made;
    for (std::size_t i = 0; i < state_.defined; ++i) depth += 1u + state_.blocks[i].steps;
    return depth + (state_.inside ? 1u + state_.blocks[state_.defined].steps : 0u);
}

bool Worker::complete(std::vector<std::uint8_t> &outputs) {
    const KernelState &graph = state_.graph;
    const std::size_t targets = space_.problem().outputs.size();
    for (std::uint8_t i = 0; i < graph.count; ++i) {
        // An input that the target does not need is no result.
        if (graph.tensors[i].uses || (i < space_.problem().inputs.size() && graph.tensors[i].cls == kNoClass)) continue;
        if (outputs.size() == targets) return false;
        outputs.push_back(i);
    }
    if (outputs.size() != targets) return false;
    ++counts_.tested;
    for (std::size_t target = 0; target < targets; ++target) {
        const auto match = std::find_if(outputs.begin() + static_cast<std::ptrdiff_t>(target), outputs.end(), [&](std::uint8_t i) {
            return graph.tensors[i].cls == space_.target(target) && graph.tensors[i].shape == space_.problem().outputs[target];
        });
        if (match == outputs.end()) return false;
        std::iter_swap(outputs.begin() + static_cast<std::ptrdiff_t>(target), match);
    }
    return true;
}

void Worker::record(const std::vector<std::uint8_t> &outputs) {
    if (counts_.first_s == 0) counts_.first_s = control_.elapsed();
    Found &found = found_.emplace_back();
    found.nodes.assign(state_.graph.nodes.begin(), state_.graph.nodes.begin() + state_.graph.made);
    found.blocks.assign(state_.blocks.begin(), state_.blocks.begin() + state_.defined);
    found.outputs = outputs;
}

template <typename Visit> void Worker::expand(const Visit &visit) {
    if (!state_.inside) {
        add_operators(visit);
        if (state_.defined < rules_.graph_defined) begin_blocks(visit);
        return;
    }
    finish_block(visit);
    const Block &block = state_.blocks[state_.defined];
    if (block.loads + block.steps < rules_.block_ops) add_operators(visit);
}

// Operators -------------------------------------------------------------------------------------------------------------

// In the complete order the newest operand counts first, so that an operator which becomes possible comes later than
// any that was possible before; the published one compares operands as they stand.
Key Worker::key(const Operator &op, std::size_t code, std::uint8_t a, std::uint8_t b) const {
    if (!op.binary()) return slot(0, a) | code << 1;
    if (rules_.as_coded || a >= b) return slot(0, a) | slot(1, b) | code << 1;
    return slot(0, b) | slot(1, a) | code << 1 | 1;
}

Key Worker::key(std::span<const std::uint8_t> sources) const {
    Key made = kBlockCode << 1 | 1;
    for (std::size_t i = 0; i < sources.size(); ++i)
        made |= slot(i, sources[rules_.as_coded ? i : sources.size() - 1 - i]);
    return made;
}

template <typename Visit> void Worker::add_operators(const Visit &visit) {
    const bool inside = state_.inside;
    const Value *values = inside ? state_.block.tiles.data() : state_.graph.tensors.data();
    const int count = inside ? state_.block.count : state_.graph.count;
    const Key last = inside ? state_.block.last : state_.graph.last;
    const std::size_t unary = space_.unary_operators(inside), binary = space_.binary_operators();
    const std::uint64_t all_unary = ((std::uint64_t{1} << unary) - 1) << binary, all_binary = (std::uint64_t{1} << binary) - 1;
    const std::uint64_t commuting = rules_.as_coded ? 0 : commuting_;
    const std::size_t ordered = binary - static_cast<std::size_t>(std::popcount(commuting));
    // What the table excludes need not be looked at one by one, where it is the table that is asked and now.
    const bool table = !z3_ && rules_.oracle_every == 1;
    const auto possible = [&](int a) { return table ? all_unary & space_.possible(values[a].cls) : all_unary; };
    const auto joins = [&](int a, int b) { return table ? all_binary & space_.possible(values[a].cls, values[b].cls) : all_binary; };
    // Nothing before the last operator's operands can come next; at the same ones, operators are compared.
    for (int a = last ? static_cast<int>(last >> 56) - 1 : 0; a < count; ++a) {
        const Key here = slot(0, static_cast<std::uint8_t>(a));
        if ((here | 0xffff) > last) attempt_all(possible(a), unary, a, -1, visit);
        const int most = rules_.as_coded ? count - 1 : a;
        for (int b = 0; b <= most; ++b) {
            if ((here | slot(1, static_cast<std::uint8_t>(b)) | 0xffff) <= last) continue;
            attempt_all(joins(a, b), binary, a, b, visit);
            if (!rules_.as_coded && b < a)
                attempt_all(joins(b, a) & ~commuting, ordered, b, a, visit);
        }
    }
}

// Operators of two values, or of one, out of so many.
template <typename Visit>
void Worker::attempt_all(std::uint64_t codes, std::size_t count, int a, int b, const Visit &visit) {
    std::size_t excluded = count; // but for those that are attempted; counting bits is a call on some processors
    for (; codes; codes &= codes - 1, --excluded)
        attempt(static_cast<std::size_t>(std::countr_zero(codes)), static_cast<std::uint8_t>(a),
                b < 0 ? Step::kNone : static_cast<std::uint8_t>(b), visit);
    counts_.candidates += excluded;
    counts_.oracle += excluded;
}

template <typename Visit> void Worker::attempt(std::size_t code, std::uint8_t a, std::uint8_t b, const Visit &visit) {
    const Operator &op = space_.operators(state_.inside)[code];
    const Key place = key(op, code, a, b);
    Key &last = state_.inside ? state_.block.last : state_.graph.last;
    if (place <= last) return;
    ++counts_.candidates;

    Value *values = state_.inside ? state_.block.tiles.data() : state_.graph.tensors.data();
    Value &x = values[a];
    Value *y = b == Step::kNone ? nullptr : &values[b];
    std::uint8_t &count = state_.inside ? state_.block.count : state_.graph.count;
    Value &made = values[count];
    std::int64_t bytes = 0;
    made.uses = 0;

    // A table tells sooner than shapes, z3 later.
    const bool first = rules_.as_coded || !z3_;
    if (first && !accepted(op, x, y, made)) {
        ++counts_.oracle;
        return;
    }
    switch (fits(op, x, y, made, bytes)) {
    case Cause::shape: ++counts_.shape; return;
    case Cause::phase: ++counts_.phase; return;
    case Cause::memory: ++counts_.memory; return;
    case Cause::good: break;
    }
    if (!first && !accepted(op, x, y, made)) {
        ++counts_.oracle;
        return;
    }

    const Key before = last;
    const bool unsound = op.accumulates() && x.phase == kInvariant && setting().loop > 1;
    const Step step{op.kind, op.arg, a, b};
    ++x.uses;
    if (y) ++y->uses;
    ++count;
    last = place;
    state_.unsound = static_cast<std::uint8_t>(state_.unsound + unsound);
    if (state_.inside) {
        Block &block = state_.blocks[state_.defined];
        block.body[block.steps++] = step;
        state_.block.bytes += bytes;
        visit();
        state_.block.bytes -= bytes;
        --block.steps;
    } else {
        state_.graph.nodes[state_.graph.made++] = step;
        visit();
        --state_.graph.made;
    }
    state_.unsound = static_cast<std::uint8_t>(state_.unsound - unsound);
    last = before;
    --count;
    if (y) --y->uses;
    --x.uses;
}

Worker::Cause Worker::phased(const Operator &op, const Value &x, const Value *y, Value &made) const {
    if (op.accumulates()) {
        made.phase = kAfter;
        const bool gathers = rules_.as_coded ? x.phase != kAfter : x.phase == kVarying;
        return gathers ? Cause::good : Cause::phase;
    }
    made.phase = x.phase;
    if (!y) return Cause::good;
    if (rules_.as_coded && (x.phase == kAfter) != (y->phase == kAfter)) return Cause::phase;
    if (x.phase + 2 == y->phase || y->phase + 2 == x.phase) return Cause::phase;
    if (x.phase == kInvariant) made.phase = y->phase;
    return Cause::good;
}

Worker::Cause Worker::fits(const Operator &op, const Value &x, const Value *y, Value &made, std::int64_t &bytes) const {
    const std::int32_t loop = state_.inside ? setting().loop : 1;
    bool good = true, in_place = false;
    switch (op.kind) {
    case Kind::matmul:
    case Kind::matmul_transposed:
        good = multiply(x.shape, y->shape, op.kind == Kind::matmul_transposed, state_.inside, made.shape);
        break;
    case Kind::add:
    case Kind::sub:
    case Kind::mul:
    case Kind::div: good = broadcast(x.shape, y->shape, made.shape); break;
    case Kind::apply:
    case Kind::accumulate:
        made.shape = x.shape;
        in_place = true;
        break;
    case Kind::norm:
        made.shape = x.shape;
        good = x.shape.last() == space_.problem().norms[op.arg].extent;
        break;
    case Kind::sum:
        good = op.arg < x.shape.rank && x.shape.extents[op.arg] > 1;
        made.shape = x.shape;
        if (good) made.shape.extents[op.arg] = 1;
        break;
    case Kind::accumulate_sum:
        good = rules_.as_coded || x.shape.last() > 1;
        made.shape = x.shape;
        made.shape.last() = 1;
        break;
    case Kind::accumulate_root:
        good = std::int64_t{x.shape.last()} * loop == space_.problem().norms[op.arg].extent;
        made.shape = x.shape;
        made.shape.last() = 1;
        break;
    }
    if (!good) return Cause::shape;
    if (!state_.inside) return Cause::good;
    if (const Cause cause = phased(op, x, y, made); cause != Cause::good) return cause;
    bytes = in_place ? 0 : made.shape.elements() * space_.problem().element_bytes;
    return state_.block.bytes + bytes <= rules_.shared_bytes ? Cause::good : Cause::memory;
}

// The oracle ------------------------------------------------------------------------------------------------------------

Class Worker::class_of(const Operator &op, const Value &x, const Value *y) const {
    const DegreeTable &table = space_.table();
    const std::int32_t loop = state_.inside ? setting().loop : 1;
    switch (op.kind) {
    case Kind::matmul:
    case Kind::matmul_transposed: return table.sum(table.join(Rule::mul, x.cls, y->cls), x.shape.last());
    case Kind::add: return table.join(Rule::add, x.cls, y->cls);
    case Kind::sub: return table.join(Rule::sub, x.cls, y->cls);
    case Kind::mul: return table.join(Rule::mul, x.cls, y->cls);
    case Kind::div: return table.join(Rule::div, x.cls, y->cls);
    case Kind::apply: return table.apply(x.cls, op.arg);
    case Kind::norm: return table.join(Rule::div, x.cls, space_.root_of(space_.problem().norms[op.arg], x.cls));
    case Kind::sum: return op.arg < x.shape.rank ? table.sum(x.cls, x.shape.extents[op.arg]) : kNoClass;
    case Kind::accumulate: return table.sum(x.cls, loop);
    case Kind::accumulate_sum: return table.sum(table.sum(x.cls, loop), x.shape.last());
    case Kind::accumulate_root: return space_.root_of(space_.problem().norms[op.arg], x.cls);
    }
    return kNoClass;
}

Expression Worker::applied(int function, Expression e) {
    const auto f = static_cast<std::size_t>(function);
    const DegreeProgram &degrees = space_.problem().degrees;
    if (f < degrees.primes.size()) {
        // A program sums one prime after another: for an oracle that is one sum.
        const bool more = expressions_.kind(e) == Expressed::sum;
        return expressions_.sum(degrees.primes[f] * (more ? expressions_.a(e) : 1), more ? expressions_.b(e) : e);
    }
    const Function &known = degrees.program.functions.at(f);
    if (known.fn == Fn::scale || known.fn == Fn::shift) {
        const Expression c = expressions_.make(Expressed::constant, static_cast<std::uint32_t>(known.id));
        return expressions_.make(known.fn == Fn::scale ? Expressed::mul : Expressed::add, e, c);
    }
    return expressions_.make(Expressed::function, static_cast<std::uint32_t>(function), e);
}

Expression Worker::root_of(const Norm &norm, Expression e) {
    for (const int function : norm.root) e = applied(function, e);
    return e;
}

Expression Worker::expression_of(const Operator &op, const Value &x, const Value *y) {
    const std::int32_t loop = state_.inside ? setting().loop : 1;
    const auto join = [&](Expressed kind) { return expressions_.make(kind, x.expression, y->expression); };
    switch (op.kind) {
    case Kind::matmul:
    case Kind::matmul_transposed: return expressions_.sum(x.shape.last(), join(Expressed::mul));
    case Kind::add: return join(Expressed::add);
    case Kind::sub: return join(Expressed::sub);
    case Kind::mul: return join(Expressed::mul);
    case Kind::div: return join(Expressed::div);
    case Kind::apply: return applied(op.arg, x.expression);
    case Kind::norm:
        return expressions_.make(Expressed::div, x.expression, root_of(space_.problem().norms[op.arg], x.expression));
    case Kind::sum: return op.arg < x.shape.rank ? expressions_.sum(x.shape.extents[op.arg], x.expression) : x.expression;
    case Kind::accumulate: return expressions_.sum(loop, x.expression);
    case Kind::accumulate_sum: return expressions_.sum(std::int64_t{loop} * x.shape.last(), x.expression);
    case Kind::accumulate_root: return root_of(space_.problem().norms[op.arg], x.expression);
    }
    return kNoExpression;
}

bool Worker::accepted(const Operator &op, const Value &x, const Value *y, Value &made) {
    made.cls = class_of(op, x, y);
    const int level = state_.inside ? state_.blocks[state_.defined].steps : state_.graph.made;
    const bool asks = (level + 1) % rules_.oracle_every == 0;
    if (!z3_) return !asks || made.cls != kNoClass;
    made.expression = expression_of(op, x, y);
    if (!asks) return true;
    const bool yes = ask(made.expression);
    counts_.only_oracle += yes && made.cls == kNoClass;
    counts_.only_table += !yes && made.cls != kNoClass;
    return yes;
}

bool Worker::ask(Expression e) {
    if (asking_.cache == Cache::none) return solve(e);
    if (asking_.cache == Cache::thread) {
        bool fresh = true;
        bool &answer = answers_.at(e, fresh);
        if (fresh) answer = solve(e);
        else ++counts_.hits;
        return answer;
    }
    const std::string text = expressions_.text(e);
    if (const std::optional<bool> known = shared_->find(text, track_, counts_.lock_s)) {
        ++counts_.hits;
        return *known;
    }
    bool yes = false;
    try {
        yes = solve(e);
    } catch (...) { // others wait for it
        shared_->put(text, false, track_, counts_.lock_s);
        throw;
    }
    shared_->put(text, yes, track_, counts_.lock_s);
    return yes;
}

// What z3 cannot decide within its effort is no sub-expression, as published.
bool Worker::solve(Expression e) {
    if (control_.stopped()) return false; // what is left to try on the way out would cost a call each
    const std::string text = formula(space_.theory(), expressions_, e);
    ++counts_.calls;
    if (text.empty()) return false;
    const Activity before = track_.to(Activity::oracle);
    const Answer answer = z3_->ask(text);
    track_.to(before);
    counts_.unknown += answer == Answer::unknown;
    control_.poll();
    return answer == Answer::yes;
}

// Blocks ----------------------------------------------------------------------------------------------------------------

// What the next block may load. Two kernels of the same loads have equal places: either may come first.
std::vector<Worker::Sources> Worker::subsets() const {
    const KernelState &graph = state_.graph;
    std::vector<Sources> all;
    Sources chosen;
    const auto offer = [&] {
        const Key place = key(std::span<const std::uint8_t>(chosen));
        if (rules_.as_coded ? place > graph.last : place >= graph.last) all.push_back(chosen);
    };
    if (rules_.as_coded) {
        const int loads = graph.count == 3 ? 3 : std::min<int>(graph.count, 2);
        for (int i = graph.count - loads; i < graph.count; ++i) chosen.push_back(static_cast<std::uint8_t>(i));
        if (loads <= rules_.loads) offer();
        return all;
    }
    const std::function<void(std::uint8_t)> choose = [&](std::uint8_t from) {
        if (!chosen.empty()) offer();
        if (static_cast<int>(chosen.size()) == rules_.loads) return;
        for (std::uint8_t i = from; i < graph.count; ++i) {
            if (graph.tensors[i].cls == kNoClass && rules_.oracle_every == 1 && !z3_) continue;
            chosen.push_back(i);
            choose(static_cast<std::uint8_t>(i + 1));
            chosen.pop_back();
        }
    };
    choose(0);
    return all;
}

template <typename Visit> void Worker::begin_blocks(const Visit &visit) {
    const std::vector<Sources> all = subsets();
    if (gather_) return (*gather_)(all);
    for (const Sources &sources : all) {
        std::vector<Shape> shapes;
        for (const std::uint8_t source : sources) shapes.push_back(state_.graph.tensors[source].shape);
        const BlockState outer = state_.block;
        for (const Setting &setting : space_.settings(shapes)) {
            if (!enter(sources, setting)) continue;
            visit();
            leave();
        }
        state_.block = outer;
    }
}

bool Worker::enter(std::span<const std::uint8_t> sources, const Setting &setting) {
    if (control_.stopped()) return false;
    Block &block = state_.blocks[state_.defined];
    block.setting = setting;
    block.loads = static_cast<std::uint8_t>(sources.size());
    block.steps = block.stores = 0;
    state_.block.count = block.loads;
    state_.block.bytes = 0;
    state_.block.last = 0;
    for (std::size_t i = 0; i < sources.size(); ++i) {
        block.sources[i] = sources[i];
        Value &tensor = state_.graph.tensors[sources[i]];
        Value &tile = state_.block.tiles[i];
        tile = tensor;
        ++tensor.uses;
        tile.uses = 0;
        tile.phase = setting.fmaps[i] < 0 ? kInvariant : kVarying;
        for (std::size_t axis = 0; axis < kGridRank; ++axis)
            if (const std::int8_t dim = setting.imaps[i][axis]; dim >= 0)
                tile.shape.extents[static_cast<std::size_t>(dim)] /= setting.grid[axis];
        if (setting.fmaps[i] >= 0) tile.shape.extents[static_cast<std::size_t>(setting.fmaps[i])] /= setting.loop;
        state_.block.bytes += tile.shape.elements() * space_.problem().element_bytes;
    }
    state_.inside = true;
    return true;
}

void Worker::leave() {
    const Block &block = state_.blocks[state_.defined];
    for (std::size_t i = 0; i < block.loads; ++i) --state_.graph.tensors[block.sources[i]].uses;
    state_.inside = false;
}

template <typename Visit> void Worker::finish_block(const Visit &visit) {
    const Block &block = state_.blocks[state_.defined];
    std::array<std::uint8_t, kMaxSaved> stored{};
    std::size_t count = 0;
    for (std::uint8_t i = 0; i < state_.block.count; ++i) {
        const Value &tile = state_.block.tiles[i];
        if (tile.uses) continue;
        const bool whole = rules_.as_coded ? tile.phase == kAfter : tile.phase != kVarying;
        if (i < block.loads || !whole || static_cast<int>(count) == rules_.stores) return;
        stored[count++] = i;
    }
    if (state_.graph.made < rules_.kernel_ops) store(std::span(stored).first(count), visit);
}

template <typename Visit> void Worker::store(std::span<const std::uint8_t> stored, const Visit &visit) {
    using Omap = std::array<std::int8_t, kGridRank>;
    static constexpr Omap kOmaps[] = {{0, 1, -1},  {0, 2, 1},  {0, 2, -1},   {0, -1, -1}, {-1, 2, 1},
                                      {-1, 1, -1}, {-1, 2, -1}, {-1, -1, -1}, {1, -1, -1}, {2, -1, -1}};
    const std::size_t omaps = std::size(kOmaps) - (rules_.as_coded ? 1 : 0);
    Block &block = state_.blocks[state_.defined];
    KernelState &graph = state_.graph;
    for (const Omap &omap : std::span(kOmaps).first(omaps)) {
        bool good = true;
        for (std::size_t axis = 0; axis < kGridRank; ++axis) {
            good &= (block.setting.grid[axis] > 1) == (omap[axis] >= 0);
            for (const std::uint8_t tile : stored) good &= omap[axis] < state_.block.tiles[tile].shape.rank;
        }
        if (!good) continue;

        block.omap = omap;
        block.stores = static_cast<std::uint8_t>(stored.size());
        for (std::size_t i = 0; i < stored.size(); ++i) {
            block.stored[i] = stored[i];
            Value &tensor = graph.tensors[graph.count + i];
            tensor = state_.block.tiles[stored[i]];
            tensor.phase = kInvariant;
            tensor.uses = 0;
            for (std::size_t axis = 0; axis < kGridRank; ++axis)
                if (omap[axis] >= 0) tensor.shape.extents[static_cast<std::size_t>(omap[axis])] *= block.setting.grid[axis];
        }
        const Key before = graph.last;
        graph.last = key(std::span<const std::uint8_t>(block.sources).first(block.loads));
        graph.nodes[graph.made++] = {kBlock, state_.defined, 0, Step::kNone};
        graph.count = static_cast<std::uint8_t>(graph.count + stored.size());
        ++state_.defined;
        state_.inside = false;
        visit();
        state_.inside = true;
        --state_.defined;
        graph.count = static_cast<std::uint8_t>(graph.count - stored.size());
        --graph.made;
        graph.last = before;
        if (control_.stopped()) return;
    }
}

// Roots -----------------------------------------------------------------------------------------------------------------

Roots::Roots(const Space &space, Control &control) : space_(space) {
    Worker worker(space, {}, nullptr, control, false);
    KernelState inputs;
    const auto &classes = space.table().table().inputs;
    for (std::size_t i = 0; i < space.problem().inputs.size(); ++i) {
        Value &tensor = inputs.tensors[inputs.count++];
        tensor.shape = space.problem().inputs[i];
        tensor.cls = classes.empty() ? kNoClass : classes[i];
        tensor.phase = kInvariant;
    }
    const Worker::Gather gather = [&](const std::vector<Worker::Sources> &all) {
        const KernelState &graph = worker.state_.graph;
        if (prefixes_.size() == kMostPrefixes)
            throw Overflow("there are too many graphs of predefined kernels; give fewer kernels");
        prefixes_.push_back(graph);
        for (const Worker::Sources &sources : all) {
            std::vector<Shape> shapes;
            for (const std::uint8_t source : sources) shapes.push_back(graph.tensors[source].shape);
            const std::vector<Setting> &settings = space.settings(shapes);
            if (!settings.empty()) groups_.push_back({size() + settings.size(), prefixes_.size() - 1, sources, &settings});
        }
    };
    worker.gather_ = &gather;
    worker.begin(inputs);
    if (!classes.empty()) worker.depth_first();
    predefined_ = std::move(worker.found_);
    counts_ = worker.counted();
}

Roots::Root Roots::root(std::size_t index) const {
    const auto group = std::ranges::upper_bound(groups_, index, {}, &Group::end);
    if (group == groups_.end()) throw std::out_of_range("there is no root " + std::to_string(index));
    const std::size_t first = group == groups_.begin() ? 0 : std::prev(group)->end;
    return {prefixes_[group->prefix], group->sources, (*group->settings)[index - first]};
}

} // namespace tilesmith::concrete
