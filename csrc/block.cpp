#include "block.hpp"

#include <algorithm>
#include <stdexcept>

namespace tilesmith {
namespace {

// Bits of every base that has any.
constexpr Free any_part(Free free) { return (free | free >> 1 | free >> 2) & kEachInBlock; }

constexpr bool gathers(StepKind kind) { return kind == StepKind::accumulate || kind == StepKind::accumulate_sum; }

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
      ways_(3 * space.classes()), needs_(3 * space.classes()), options_(space.all_partners()), moves_of_(space.classes()), of_class_(space.classes(), 0) {
    if (limits.operators > kMaxValues) throw std::invalid_argument("a block has at most 32 operators");
    squares_ = std::ranges::any_of(space.program().functions, [](const Function &f) { return f.fn == Fn::square; });
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
        steps = std::max<int>(steps, reach_.steps(class_of(inputs[i]), Reach::groups(1u << i)));
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
        if (storable(static_cast<Class>(at / 3), static_cast<std::uint8_t>(at % 3))) ways_.end(at);
        find_leads(at);
    }
    if (!ways_.settle(most_stores_ > 1, limits_.connected)) return false;
    singles_.clear();
    for (const Reach::Node at : ways_.nodes()) find_options(at);
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
    const auto c = static_cast<Class>(from / 3);
    const auto phase = static_cast<std::uint8_t>(from % 3);
    Option *option = &options_[space_.first_partner(c)];
    const bool known = ways_.seen(node(c, (phase + 1) % 3)) || ways_.seen(node(c, (phase + 2) % 3));
    for (const Partner &partner : space_.partners(c)) {
        if (!known) *option = {result_of(partner, c), false};
        const Class result = (option++)->result;
        if (result == kNoClass) continue;
        if (partner.other == kNoClass) {
            if (!gathers(partner.kind)) ways_.lead(from, Reach::kNone, node(result, phase));
            else if (phase == kVarying) ways_.lead(from, Reach::kNone, node(result, kAfter));
            continue;
        }
        std::uint8_t joined = 0;
        for (std::uint8_t other = 0; other < 3; ++other)
            if (ways_.seen(node(partner.other, other)) && join_phases(phase, other, joined))
                ways_.lead(from, node(partner.other, other), node(result, joined));
    }
}

// Which partners lead to a store in so many steps as there may be, and what a kind of value needs for it.
void BlockSearch::find_options(Reach::Node from) {
    const auto c = static_cast<Class>(from / 3);
    const auto phase = static_cast<std::uint8_t>(from % 3);
    const int left = limits_.operators - inputs_;
    bool joins = false;
    Option *option = &options_[space_.first_partner(c)];
    for (const Partner &partner : space_.partners(c)) {
        Option &here = *option++;
        if (here.result == kNoClass) continue;
        if (partner.other == kNoClass) {
            if (gathers(partner.kind) && phase != kVarying) continue;
            const Reach::Node to = node(here.result, gathers(partner.kind) ? std::uint8_t{kAfter} : phase);
            if (ways_.steps(from, Reach::kNone, to) >= left) continue;
            here.leads = true;
            singles_.emplace_back(from, to);
            continue;
        }
        std::uint8_t joined = 0;
        for (std::uint8_t other = 0; other < 3; ++other) {
            const Reach::Node with = node(partner.other, other);
            if (!ways_.seen(with) || !join_phases(phase, other, joined)) continue;
            if (ways_.steps(from, with, node(here.result, joined)) >= left) continue;
            here.leads = joins = true;
        }
    }
    const bool stored = storable(c, phase);
    needs_[from] = {joins, stored, joins || stored ? std::uint8_t{0} : Reach::kNever};
}

void BlockSearch::list_moves() {
    moves_.clear();
    for (const Reach::Node at : ways_.nodes()) moves_of_[at / 3] = {};
    for (const Reach::Node at : ways_.nodes()) {
        const auto c = static_cast<Class>(at / 3);
        // A class may be there in several phases.
        if (moves_of_[c].end) continue;
        const Option *option = &options_[space_.first_partner(c)];
        moves_of_[c].first = static_cast<std::uint32_t>(moves_.size());
        for (const Partner &partner : space_.partners(c)) {
            const Option &here = *option++;
            if (!here.leads) continue;
            moves_.push_back(partner);
            moves_.back().result = here.result;
        }
        moves_of_[c].end = static_cast<std::uint32_t>(moves_.size());
    }
}

void BlockSearch::walk(const Walk &walk) {
    ++counters.blocks;
    walk_ = walk;
    looped_ = walk.loop ? free_parts(walk.loop, walk.loop_parts) : 0;
    outside_ = looped_ | (walk.split ? free_parts(walk.split, kInGrid) : 0);
    for (int i = 0; i < count_; ++i) of_class_[values_[static_cast<std::size_t>(i)].cls] = 0;
    count_ = 0;
    for (const Tensor input : found_->inputs) {
        const Class c = class_of(input);
        const bool varies = (space_.free(c) & looped_) != 0;
        const std::uint8_t phase = varies ? kVarying : kInvariant;
        values_[static_cast<std::size_t>(count_)] = {c, phase, 0, node(c, phase), 1u << count_, dims_of(input)};
        of_class_[c] |= 1u << count_;
        ++count_;
    }
    inputs_ = unused_ = unused_inputs_ = count_;
    unused_values_ = (1u << count_) - 1;
    unused_varying_ = 0;
    for (int i = 0; i < count_; ++i) unused_varying_ += values_[static_cast<std::size_t>(i)].phase == kVarying;
    high_ = low_ = code_ = 0;
    if (survey() && within_bounds()) grow();
    else ++counters.bound;
}

// The canonical order: a step's key is its larger operand, then its smaller one (0 if there is none, else its place
// plus one), then its code, and keys grow. Of all orders of one graph exactly one grows, since a step that another
// makes possible has a larger first operand than whatever was possible before.
void BlockSearch::grow() {
    if ((++counters.states & 4095) == 0 && control_.poll()) return;
    if (count_ > inputs_ && unused_inputs_ == 0 && unused_ <= most_stores_) finish();
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

    Value &x = values_[static_cast<std::size_t>(high)];
    Value &y = values_[static_cast<std::size_t>(low < 0 ? high : low)];
    const Reach::Node kind = node(made.cls, made.phase);
    if (ways_.steps(kind, Reach::groups(x.loads | y.loads)) >= limits_.operators - count_) {
        ++counters.bound;
        return;
    }
    const std::uint32_t unused_values = unused_values_;
    const int unused = unused_, unused_inputs = unused_inputs_, unused_varying = unused_varying_;
    const int h = high_, l = low_, c = code_;
    const auto use = [&](Value &value, int place) {
        if (value.uses++ > 0) return;
        unused_values_ &= ~(1u << place);
        --unused_;
        unused_inputs_ -= place < inputs_;
        unused_varying_ -= value.phase == kVarying;
    };
    use(x, high);
    if (low >= 0 && low != high) use(y, low);

    const auto place = static_cast<std::size_t>(count_);
    values_[place] = {made.cls, made.phase, 0, kind, x.loads | y.loads, made.dims};
    const auto operand = [](int value) { return value < 0 ? Step::kNoOperand : static_cast<std::uint8_t>(value); };
    steps_[place] = {partner.kind, partner.arg, operand(partner.reversed ? low : high), operand(partner.reversed ? high : low)};
    of_class_[made.cls] |= 1u << count_;
    unused_values_ |= 1u << count_;
    ++count_;
    ++unused_;
    unused_varying_ += made.phase == kVarying;
    high_ = high;
    low_ = low + 1;
    code_ = partner.code;
    if (within_bounds()) grow();
    else ++counters.bound;
    --count_;
    of_class_[made.cls] &= ~(1u << count_);
    --x.uses;
    if (low >= 0 && low != high) --y.uses;
    unused_values_ = unused_values;
    unused_ = unused;
    unused_inputs_ = unused_inputs;
    unused_varying_ = unused_varying;
    high_ = h;
    low_ = l;
    code_ = c;
}

bool BlockSearch::join_phases(std::uint8_t a, std::uint8_t b, std::uint8_t &joined) {
    if (a == b) joined = a;
    else if ((a ^ b) == (kVarying ^ kAfter)) return false;
    else joined = a == kInvariant ? b : a;
    return true;
}

// Dimensions that both have must have the same parts in the block's tile, or the tiles differ in extent.
bool BlockSearch::same_extents(Free a, Free b) const {
    const Free x = a & ~outside_, y = b & ~outside_;
    const Free both = any_part(x) & any_part(y);
    return ((x ^ y) & both * 7) == 0;
}

// Whether a value has every base of a set within its tile.
bool BlockSearch::in_tile(Free free, Bases over) const {
    for (; over; over &= over - 1)
        if (!parts_of(free & ~outside_, static_cast<Base>(__builtin_ctz(over)))) return false;
    return true;
}

bool BlockSearch::broadcasts(Dims a, Dims b, Dims &joined) const {
    joined = a | b;
    return ((a ^ b) & occupied(a) & occupied(b)) == 0;
}

// The sum over all parts of some bases that are in the tile; none where a base has no such part.
Class BlockSearch::sum_in_tile(Class c, Free free, Bases over) const {
    for (; over && c != kNoClass; over &= over - 1) {
        const Base base = static_cast<Base>(__builtin_ctz(over));
        const unsigned parts = parts_of(free & ~outside_, base);
        c = parts ? space_.sum(c, base, parts) : kNoClass;
    }
    return c;
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

// The class of what a step makes in this walk's tiles, or kNoClass.
Class BlockSearch::result_of(const Partner &partner, Class c) {
    const Free free = space_.free(c);
    const auto refuse = [](std::uint64_t &counter) { return ++counter, kNoClass; };
    Class made = partner.result;
    switch (partner.kind) {
    case StepKind::add:
    case StepKind::sub:
    case StepKind::mul:
    case StepKind::div:
        return oriented_ || same_extents(free, space_.free(partner.other)) ? made : refuse(counters.shape);
    case StepKind::matmul: {
        const Free other = space_.free(partner.other);
        const Bases over = space_.sets()[partner.arg];
        if (!oriented_ && (!same_extents(free, other) || !in_tile(free, over) || !in_tile(other, over)))
            return refuse(counters.shape);
        made = sum_in_tile(partner.result, free | other, over);
        break;
    }
    case StepKind::apply: {
        const Function &function = space_.program().functions[partner.arg];
        // A macro that sums needs its whole dimension in the tile.
        const unsigned whole = space_.program().parts[function.base];
        return function.fn != Fn::rms_norm || parts_of(free & ~outside_, function.base) == whole ? made : refuse(counters.shape);
    }
    case StepKind::sum: made = sum_in_tile(c, free, space_.sets()[partner.arg]); break;
    case StepKind::accumulate:
    case StepKind::accumulate_sum: {
        const unsigned looped = walk_.loop ? parts_of(free & looped_, walk_.loop) : 0;
        if (!looped) return refuse(counters.phase);
        made = space_.sum(c, walk_.loop, looped);
        if (made != kNoClass && partner.kind == StepKind::accumulate_sum)
            made = sum_in_tile(made, space_.free(made), space_.sets()[partner.arg]);
        break;
    }
    }
    return made != kNoClass && space_.live(made) ? made : refuse(counters.table);
}

bool BlockSearch::make(const Partner &partner, int high, int low, Made &made) {
    const Value &x = values_[static_cast<std::size_t>(high)];
    const auto refuse = [](std::uint64_t &counter) { return ++counter, false; };
    made = {partner.result, x.phase, x.dims};
    if (low >= 0) {
        const Value &y = values_[static_cast<std::size_t>(low)];
        if (!join_phases(x.phase, y.phase, made.phase)) return refuse(counters.phase);
        if (!oriented_) return true;
        if (partner.kind != StepKind::matmul) return broadcasts(x.dims, y.dims, made.dims) || refuse(counters.shape);
        const Value &left = partner.reversed ? y : x, &right = partner.reversed ? x : y;
        const Base inner = dim(left.dims, 0);
        if (!inner || bit(inner) != space_.sets()[partner.arg] || dim(right.dims, 1) != inner) return refuse(counters.shape);
        return broadcasts(with_dim(left.dims, 0, 0), with_dim(right.dims, 1, 0), made.dims) || refuse(counters.shape);
    }
    if (gathers(partner.kind)) {
        if (x.phase != kVarying) return refuse(counters.phase);
        made.phase = kAfter;
    }
    const bool sums = partner.kind == StepKind::sum || partner.kind == StepKind::accumulate_sum;
    return !sums || remove_dims(x.dims, space_.sets()[partner.arg], made.dims) || refuse(counters.shape);
}

// Admissible. What is unused must be joined until so many are left as are stored, which takes a step for every pair; before
// its first join each takes some steps alone, and what varies is accumulated; and each has its way to a store. Steps
// come in their order, in which what stands before the last operand can only be joined or stored any more.
bool BlockSearch::within_bounds() {
    int alone = 0, after = 0, farthest = 0;
    bool gathered = unused_varying_ == 0;
    for (std::uint32_t left = unused_values_; left; left &= left - 1) {
        const int i = __builtin_ctz(left);
        const Value &value = values_[static_cast<std::size_t>(i)];
        const Needs &needs = needs_[value.node];
        if (i < high_ && !needs.joins && !needs.stored) return false;
        const std::uint32_t groups = Reach::groups(value.loads);
        alone += needs.alone;
        gathered |= needs.alone && value.phase == kVarying;
        farthest = std::max<int>(farthest, ways_.steps(value.node, groups));
        after = std::max(after, ways_.singles(value.node, groups) - needs.alone);
    }
    const int least = std::max(farthest, std::max(0, unused_ - most_stores_) + alone + std::max(after, gathered ? 0 : 1));
    return affords(least, limits_.operators - count_);
}

bool may_be_stored(const Space &space, const BlockLimits &limits, Goal goal, Class c) {
    if (goal == Goal::last && !space.target(c)) return false;
    // Nothing uses a single target.
    if (goal == Goal::between && space.table().outputs.size() == 1 && space.target(c)) return false;
    if (limits.whole && !space.whole(c)) return false;
    return !limits.unscaled || !space.scaled(c) || space.target(c);
}

bool BlockSearch::may_be_stored(Class c) const { return tilesmith::may_be_stored(space_, limits_, goal_, c); }

bool BlockSearch::storable(Class c, std::uint8_t phase) const {
    if (walk_.loop ? phase != kAfter : phase == kVarying) return false;
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
    for (std::uint32_t left = unused_values_; left; left &= left - 1) {
        const int i = __builtin_ctz(left);
        const Value &value = values_[static_cast<std::size_t>(i)];
        if (!needs_[value.node].stored) return;
        if (goal_ == Goal::last) {
            const auto &outputs = space_.table().outputs;
            const auto found = std::ranges::find(outputs, value.cls);
            if (found == outputs.end()) return;
            const auto place = static_cast<std::size_t>(found - outputs.begin());
            if (oriented_ && space_.table().output_dims[place] != value.dims) return;
        } else if (space_.target(value.cls) && !several_targets_ && (goal_ == Goal::between || unused_ > 1)) {
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
