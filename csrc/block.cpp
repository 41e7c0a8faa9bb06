#include "block.hpp"

#include <algorithm>
#include <bit>
#include <stdexcept>

namespace tilesmith {
namespace {

constexpr Dims occupied(Dims dims) {
    Dims mask = 0;
    for (int i = 0; i < kRank; ++i)
        if (dim(dims, i)) mask |= Dims{0xff} << (8 * i);
    return mask;
}

} // namespace

void Counters::operator+=(const Counters &other) {
    states += other.states;
    candidates += other.candidates;
    shape += other.shape;
    phase += other.phase;
    table += other.table;
    duplicate += other.duplicate;
    bound += other.bound;
    blocks += other.blocks;
    short_by = std::min(short_by, other.short_by);
}

BlockSearch::BlockSearch(const Space &space, const BlockLimits &limits, Control &control)
    : space_(space), limits_(limits), control_(control), oriented_(space.options().shapes == Shapes::oriented),
      several_targets_(space.table().outputs.size() > 1), reach_(space.classes()),
      ways_(Ground::kPhases * space.classes()), needs_(Ground::kPhases * space.classes()), leads_(space.all_partners(), 0),
      moves_of_(space.classes()), of_class_(space.classes(), 0) {
    if (limits.operators > kMaxValues) throw std::invalid_argument("a block has at most 32 operators");
    squares_ = std::ranges::any_of(space.program().functions, [](const Function &f) { return f.fn == Fn::square; });
    for (const Goal goal : {Goal::between, Goal::last, Goal::any})
        for (std::size_t c = 0; c < space.classes(); ++c)
            storable_[static_cast<std::size_t>(goal)].push_back(tilesmith::may_be_stored(space, limits, goal, static_cast<Class>(c)));
    const auto bases = static_cast<std::size_t>(space.program().bases()) + 1;
    grounds_.resize(bases * bases << kParts);
}

Kernels BlockSearch::run(std::span<const Tensor> inputs, Goal goal) {
    Kernels found;
    found.inputs.assign(inputs.begin(), inputs.end());
    found_ = &found;
    goal_ = goal;
    const bool last = goal == Goal::last;
    const int stores = std::min(limits_.stores, kMaxStores);
    most_stores_ = last ? std::min(stores, static_cast<int>(space_.table().outputs.size())) : stores;
    if (static_cast<int>(inputs.size()) >= limits_.operators) return found;
    if (!look(inputs)) return found;

    walk({});
    for (int b = 1; b <= space_.program().bases(); ++b) {
        const Base base = static_cast<Base>(b);
        if (!(space_.program().parts[base] & kInLoop)) continue;
        unsigned parts = 0;
        for (const Tensor input : inputs) parts |= parts_of(space_.free(class_of(input)), base);
        if (!(parts & (kInLoop | kInGrid))) continue;
        walk({base, static_cast<std::uint8_t>(parts & (kInLoop | kInGrid)), 0});
        // A block of its own for every grid part, whose sums another kernel joins.
        if ((parts & kInGrid) && (parts & kInLoop) && !last) {
            walk({0, 0, base});
            walk({base, kInLoop, base});
        }
    }
    return found;
}

// Whether something can be stored at all, whatever the walk.
bool BlockSearch::look(std::span<const Tensor> inputs) {
    reach_.clear(inputs.size());
    for (std::size_t i = 0; i < inputs.size(); ++i) reach_.start(class_of(inputs[i]), static_cast<std::uint32_t>(i));
    for (Reach::Node c = reach_.next(); c != Reach::kNone; c = reach_.next()) {
        if (may_be_stored(c)) reach_.end(c);
        for (const Class made : space_.singles(c)) reach_.lead(c, Reach::kNone, made);
        for (const Space::Join &join : space_.joins(c))
            if (reach_.seen(join.other)) reach_.lead(c, join.other, join.result);
    }
    if (!reach_.settle(most_stores_ > 1, limits_.connected)) return false;
    int steps = 0;
    for (std::size_t i = 0; i < inputs.size(); ++i)
        steps = std::max<int>(steps, reach_.far(class_of(inputs[i]), Reach::groups(1u << i)).steps);
    return affords(steps, limits_.operators - static_cast<int>(inputs.size()));
}

bool BlockSearch::affords(int steps, int left) {
    if (steps <= left) return true;
    if (goal_ == Goal::last && steps < Reach::kNever) counters.short_by = std::min(counters.short_by, steps - left);
    return false;
}

// What can be made in this walk and leads to a store. False where there is none.
bool BlockSearch::survey() {
    ways_.clear(found_->inputs.size());
    for (int i = 0; i < count_; ++i)
        ways_.start(values_[static_cast<std::size_t>(i)].node, static_cast<std::uint32_t>(i));
    for (Reach::Node at = ways_.next(); at != Reach::kNone; at = ways_.next()) {
        if (storable(Ground::class_in(at), Ground::phase_in(at))) ways_.end(at);
        find_leads(at);
    }
    if (!ways_.settle(most_stores_ > 1, limits_.connected)) return false;
    singles_.clear();
    for (const Reach::Node at : ways_.nodes()) find_needs(at);
    list_moves();
    for (bool changed = true; changed;) {
        changed = false;
        for (const auto &[from, to] : singles_) {
            if (needs_[to].alone + 1 >= needs_[from].alone) continue;
            needs_[from].alone = static_cast<std::uint8_t>(needs_[to].alone + 1);
            changed = true;
        }
    }
    return true;
}

void BlockSearch::find_leads(Reach::Node from) {
    const Class c = Ground::class_in(from);
    const Ground::Refused &refused = ground_->look(c);
    const auto seen = [&](std::uint8_t phase) { return ways_.seen(Ground::node(c, phase)); };
    if (seen(Ground::kVarying) + seen(Ground::kInvariant) + seen(Ground::kAfter) == 1) {
        counters.shape += refused.shape;
        counters.phase += refused.phase;
        counters.table += refused.table;
        std::fill_n(&leads_[space_.first_partner(c)], space_.partners(c).size(), 0);
    }
    for (const Ground::Edge &edge : ground_->from(from))
        if (edge.with == Reach::kNone || ways_.seen(edge.with)) ways_.lead(from, edge.with, edge.to);
}

// Which partners lead to a store in so many steps as there may be, and what a kind of value needs for it.
void BlockSearch::find_needs(Reach::Node from) {
    const int left = limits_.operators - inputs_;
    bool joins = false;
    for (const Ground::Edge &edge : ground_->from(from)) {
        const bool alone = edge.with == Reach::kNone;
        if (!alone && !ways_.seen(edge.with)) continue;
        if (ways_.steps(from, edge.with, edge.to) >= left) continue;
        leads_[edge.partner] = 1;
        if (alone) singles_.emplace_back(from, edge.to);
        else joins = true;
    }
    const bool stored = storable(Ground::class_in(from), Ground::phase_in(from));
    needs_[from] = {joins, stored, joins || stored ? std::uint8_t{0} : Reach::kNever};
}

void BlockSearch::list_moves() {
    moves_.clear();
    for (const Reach::Node at : ways_.nodes()) moves_of_[Ground::class_in(at)] = {};
    for (const Reach::Node at : ways_.nodes()) {
        const Class c = Ground::class_in(at);
        // A class may be there in several phases.
        if (moves_of_[c].end) continue;
        std::size_t place = space_.first_partner(c);
        moves_of_[c].first = static_cast<std::uint32_t>(moves_.size());
        for (const Partner &partner : space_.partners(c)) {
            if (leads_[place]) {
                moves_.push_back(partner);
                moves_.back().result = ground_->result(place);
            }
            ++place;
        }
        moves_of_[c].end = static_cast<std::uint32_t>(moves_.size());
    }
}

Ground &BlockSearch::ground(const Walk &walk) {
    const auto bases = static_cast<std::size_t>(space_.program().bases()) + 1;
    auto &ground = grounds_[(walk.loop * bases + walk.split) << kParts | walk.loop_parts];
    if (!ground) ground = std::make_unique<Ground>(space_, walk);
    return *ground;
}

// The next value of the kernel.
void BlockSearch::place(const Value &value) {
    const auto at = static_cast<std::size_t>(count_);
    values_[at] = value;
    const std::uint32_t here = 1u << count_++;
    of_class_[value.cls] |= here;
    unused_ |= here;
    varying_ = value.phase == Ground::kVarying ? varying_ | here : varying_ & ~here;
}

void BlockSearch::walk(const Walk &walk) {
    ++counters.blocks;
    walk_ = walk;
    ground_ = &ground(walk);
    for (int i = 0; i < count_; ++i) of_class_[values_[static_cast<std::size_t>(i)].cls] = 0;
    count_ = 0;
    unused_ = 0;
    for (const Tensor input : found_->inputs) {
        const Class c = class_of(input);
        const std::uint8_t phase = space_.free(c) & ground_->looped() ? Ground::kVarying : Ground::kInvariant;
        Value value;
        value.cls = c;
        value.node = Ground::node(c, phase);
        value.phase = phase;
        value.loads = 1u << count_;
        value.dims = dims_of(input);
        place(value);
    }
    inputs_ = count_;
    high_ = low_ = code_ = 0;
    if (!survey()) {
        ++counters.bound;
        return;
    }
    for (int i = 0; i < count_; ++i) {
        Value &value = values_[static_cast<std::size_t>(i)];
        settle(value, ways_.far(value.node, Reach::groups(value.loads)));
    }
    if (within_bounds()) grow();
    else ++counters.bound;
}

// The canonical order: a step's key is its larger operand, then its smaller one (0 if there is none, else its place
// plus one), then its code, and keys grow. Of all orders of one graph exactly one grows, since a step that another
// makes possible has a larger first operand than whatever was possible before.
void BlockSearch::grow() {
    if ((++counters.states & 4095) == 0 && control_.poll()) return;
    const bool uses_inputs = (unused_ & ((1u << inputs_) - 1)) == 0;
    if (count_ > inputs_ && uses_inputs && std::popcount(unused_) <= most_stores_) finish();
    if (count_ >= limits_.operators) return;
    const bool first = count_ == inputs_;
    for (int high = high_; high < count_; ++high) {
        const bool same_high = high == high_;
        const Moves moves = moves_of_[values_[static_cast<std::size_t>(high)].cls];
        for (std::uint32_t move = moves.first; move < moves.end; ++move) {
            const Partner &partner = moves_[move];
            if (partner.other == kNoClass) {
                if (!same_high || (low_ == 0 && (first || partner.code > code_))) attempt(partner, high, -1);
                continue;
            }
            std::uint32_t lows = of_class_[partner.other] & ((2u << high) - 1);
            if (same_high && low_ > 1) lows &= ~((1u << (low_ - 1)) - 1);
            for (; lows; lows &= lows - 1) {
                const int low = __builtin_ctz(lows);
                if (same_high && low + 1 == low_ && partner.code <= code_) continue;
                // x·x is a square where there is one.
                if (low == high && (partner.reversed || (partner.kind == StepKind::mul && squares_))) continue;
                attempt(partner, high, low);
            }
        }
        if (control_.stopped()) return;
    }
}

void BlockSearch::attempt(const Partner &partner, int high, int low) {
    ++counters.candidates;
    Made made;
    if (!make(partner, high, low, made)) return;
    // The same value twice is never needed: what one can do the other can, or the one that varies less.
    for (std::uint32_t twins = of_class_[made.cls]; twins; twins &= twins - 1)
        if (values_[static_cast<std::size_t>(__builtin_ctz(twins))].dims == made.dims) {
            ++counters.duplicate;
            return;
        }

    const Value &x = values_[static_cast<std::size_t>(high)], &y = values_[static_cast<std::size_t>(low < 0 ? high : low)];
    const Reach::Node kind = Ground::node(made.cls, made.phase);
    const std::uint32_t loads = x.loads | y.loads;
    const Reach::Far far = ways_.far(kind, Reach::groups(loads));
    if (far.steps >= limits_.operators - count_) {
        ++counters.bound;
        return;
    }
    const std::uint32_t unused = unused_;
    const int h = high_, l = low_, c = code_;
    unused_ &= ~(1u << high | (low < 0 ? 0 : 1u << low));

    const auto operand = [](int value) { return value < 0 ? Step::kNoOperand : static_cast<std::uint8_t>(value); };
    steps_[static_cast<std::size_t>(count_)] = {partner.kind, partner.arg, operand(partner.reversed ? low : high),
                                                operand(partner.reversed ? high : low)};
    Value value;
    value.cls = made.cls;
    value.node = kind;
    value.phase = made.phase;
    value.loads = loads;
    value.dims = made.dims;
    settle(value, far);
    place(value);
    high_ = high;
    low_ = low + 1;
    code_ = partner.code;
    if (within_bounds()) grow();
    else ++counters.bound;
    --count_;
    of_class_[made.cls] &= ~(1u << count_);
    unused_ = unused;
    high_ = h;
    low_ = l;
    code_ = c;
}

bool BlockSearch::broadcasts(Dims a, Dims b, Dims &joined) const {
    joined = a | b;
    return ((a ^ b) & occupied(a) & occupied(b)) == 0;
}

bool BlockSearch::remove_dims(Dims dims, Bases over, Dims &left) const {
    left = dims;
    for (; oriented_ && over; over &= over - 1) {
        const int at = find_dim(dims, static_cast<Base>(__builtin_ctz(over)));
        if (at < 0) return false;
        left = with_dim(left, at, 0);
    }
    return true;
}

bool BlockSearch::make(const Partner &partner, int high, int low, Made &made) {
    const Value &x = values_[static_cast<std::size_t>(high)];
    const auto refuse = [](std::uint64_t &counter) { return ++counter, false; };
    made = {partner.result, x.phase, x.dims};
    if (low >= 0) {
        const Value &y = values_[static_cast<std::size_t>(low)];
        if (!Ground::join(x.phase, y.phase, made.phase)) return refuse(counters.phase);
        if (!oriented_) return true;
        if (partner.kind != StepKind::matmul) return broadcasts(x.dims, y.dims, made.dims) || refuse(counters.shape);
        const Value &left = partner.reversed ? y : x, &right = partner.reversed ? x : y;
        const Base inner = dim(left.dims, 0);
        if (!inner || bit(inner) != space_.sets()[partner.arg] || dim(right.dims, 1) != inner) return refuse(counters.shape);
        return broadcasts(with_dim(left.dims, 0, 0), with_dim(right.dims, 1, 0), made.dims) || refuse(counters.shape);
    }
    if (gathers(partner.kind)) {
        if (x.phase != Ground::kVarying) return refuse(counters.phase);
        made.phase = Ground::kAfter;
    }
    const bool sums = partner.kind == StepKind::sum || partner.kind == StepKind::accumulate_sum;
    return !sums || remove_dims(x.dims, space_.sets()[partner.arg], made.dims) || refuse(counters.shape);
}

// What a value takes on its way to a store that is so far.
void BlockSearch::settle(Value &value, const Reach::Far &far) const {
    const Needs &needs = needs_[value.node];
    value.steps = far.steps;
    value.alone = needs.alone;
    value.after = static_cast<std::uint8_t>(std::max(0, far.singles - needs.alone));
    value.goes_on = needs.joins || needs.stored;
}

// Admissible. What is unused must be joined until so many are left as are stored, which takes a step for every pair; before
// its first join each takes some steps alone, and what varies is accumulated; and each has its way to a store. Steps
// come in their order, in which what stands before the last operand can only be joined or stored any more.
bool BlockSearch::within_bounds() {
    int alone = 0, after = 0, farthest = 0, unused = 0;
    bool gathered = (unused_ & varying_) == 0;
    for (std::uint32_t left = unused_; left; left &= left - 1) {
        const int i = __builtin_ctz(left);
        const Value &value = values_[static_cast<std::size_t>(i)];
        if (i < high_ && !value.goes_on) return false;
        ++unused;
        alone += value.alone;
        gathered |= value.alone && (varying_ >> i & 1);
        farthest = std::max<int>(farthest, value.steps);
        after = std::max<int>(after, value.after);
    }
    const int least = std::max(farthest, std::max(0, unused - most_stores_) + alone + std::max(after, gathered ? 0 : 1));
    return affords(least, limits_.operators - count_);
}

bool may_be_stored(const Space &space, const BlockLimits &limits, Goal goal, Class c) {
    if (goal == Goal::last && !space.target(c)) return false;
    // Nothing uses a single target.
    if (goal == Goal::between && space.table().outputs.size() == 1 && space.target(c)) return false;
    if (limits.whole && !space.whole(c)) return false;
    return !limits.unscaled || !space.scaled(c) || space.target(c);
}

bool BlockSearch::may_be_stored(Class c) const { return storable_[static_cast<std::size_t>(goal_)][c]; }

bool BlockSearch::storable(Class c, std::uint8_t phase) const {
    if (walk_.loop ? phase != Ground::kAfter : phase == Ground::kVarying) return false;
    if (!may_be_stored(c)) return false;
    // Every block of a split writes its own part.
    return !walk_.split || (parts_of(space_.free(c), walk_.split) & kInGrid);
}

// Whether the same kernel exists under other names and comes first there: it computes the same tensors.
bool BlockSearch::renamable(const std::array<int, kMaxStores> &stores, int count) const {
    for (std::size_t renaming = 0; renaming < space_.renamings(); ++renaming) {
        const auto missing = [&](Tensor input) { return space_.view(renaming, class_of(input)) == kNoClass; };
        if (std::ranges::any_of(found_->inputs, missing)) continue;
        std::array<Class, kMaxStores> here{}, there{};
        for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i) {
            here[i] = values_[static_cast<std::size_t>(stores[i])].cls;
            there[i] = space_.view(renaming, here[i]);
        }
        if (std::ranges::find(there, kNoClass) != there.end()) continue;
        if (count == 2 && here[0] > here[1]) std::swap(here[0], here[1]);
        if (count == 2 && there[0] > there[1]) std::swap(there[0], there[1]);
        if (there < here) return true;
    }
    return false;
}

void BlockSearch::finish() {
    std::array<int, kMaxStores> stores{};
    int count = 0;
    for (std::uint32_t left = unused_; left; left &= left - 1) {
        const int i = __builtin_ctz(left);
        const Value &value = values_[static_cast<std::size_t>(i)];
        if (!needs_[value.node].stored) return;
        if (goal_ == Goal::last) {
            const auto &outputs = space_.table().outputs;
            const auto found = std::ranges::find(outputs, value.cls);
            if (found == outputs.end()) return;
            const auto place = static_cast<std::size_t>(found - outputs.begin());
            if (oriented_ && space_.table().output_dims[place] != value.dims) return;
        } else if (space_.target(value.cls) && !several_targets_ && (goal_ == Goal::between || std::popcount(unused_) > 1)) {
            // Nothing uses a single target, nor what is stored beside it.
            return;
        }
        stores[static_cast<std::size_t>(count++)] = i;
    }
    if (limits_.connected && count == 2 &&
        !(values_[static_cast<std::size_t>(stores[0])].loads & values_[static_cast<std::size_t>(stores[1])].loads))
        return;
    if (goal_ == Goal::last || !renamable(stores, count)) keep(stores, count);
}

void BlockSearch::keep(std::array<int, kMaxStores> stores, int count) {
    std::array<Tensor, kMaxStores> outputs{kNoTensor, kNoTensor};
    for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i) {
        const Value &value = values_[static_cast<std::size_t>(stores[i])];
        outputs[i] = tensor(value.cls, value.dims);
    }
    if (count == 2 && outputs[0] > outputs[1]) {
        std::swap(outputs[0], outputs[1]);
        std::swap(stores[0], stores[1]);
    }
    auto signature = std::ranges::find_if(found_->signatures, [&](const Signature &s) { return s.outputs == outputs; });
    if (signature == found_->signatures.end())
        signature = found_->signatures.insert(found_->signatures.end(), Signature{outputs, {}});
    Implementation made;
    made.walk = walk_;
    made.steps = static_cast<std::uint8_t>(count_ - inputs_);
    for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i) made.stores[i] = static_cast<std::uint8_t>(stores[i]);
    made.first_step = static_cast<std::uint32_t>(found_->steps.size());
    found_->steps.insert(found_->steps.end(), steps_.begin() + inputs_, steps_.begin() + count_);
    signature->implementations.push_back(made);
}

} // namespace tilesmith
