#include "block.hpp"

#include <algorithm>
#include <stdexcept>

namespace tilesmith {
namespace {

// Bits of every base that has any.
constexpr Free any_part(Free free) { return (free | free >> 1 | free >> 2) & kEachInBlock; }

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
      several_targets_(space.table().outputs.size() > 1), reach_(space), of_class_(space.classes(), 0) {
    if (limits.operators > kMaxValues) throw std::invalid_argument("a block has at most 32 operators");
    squares_ = std::ranges::any_of(space.program().functions, [](const Function &f) { return f.fn == Fn::square; });
    between_needs_ = needs(false);
    last_needs_ = needs(true);
    for (std::size_t c = 0; c < space.classes(); ++c) {
        ends_.push_back(may_be_stored(static_cast<Class>(c)));
        last_ends_.push_back(ends_.back() && space.target(static_cast<Class>(c)));
    }
}

// What values need before they are joined or stored; `last`: only targets are.
std::vector<BlockSearch::Needs> BlockSearch::needs(bool last) const {
    std::vector<Needs> needs(space_.classes());
    for (std::size_t i = 0; i < needs.size(); ++i) {
        const Class c = static_cast<Class>(i);
        needs[i].joins = std::ranges::any_of(space_.partners(c), [](const Partner &p) { return p.other != kNoClass; });
        const bool ends = last ? space_.target(c) : may_be_stored(c);
        needs[i].alone = needs[i].joins || ends ? 0 : Space::kFar;
    }
    for (bool changed = true; changed;) {
        changed = false;
        for (std::size_t i = 0; i < needs.size(); ++i)
            for (const Class next : space_.singles(static_cast<Class>(i))) {
                if (needs[next].alone + 1 >= needs[i].alone) continue;
                needs[i].alone = static_cast<std::uint8_t>(needs[next].alone + 1);
                changed = true;
            }
    }
    return needs;
}

Kernels BlockSearch::run(std::span<const Tensor> inputs, Goal goal) {
    Kernels found;
    found.inputs.assign(inputs.begin(), inputs.end());
    found_ = &found;
    goal_ = goal;
    const bool last = goal == Goal::last;
    needs_ = last ? &last_needs_ : &between_needs_;
    const int stores = std::min(limits_.stores, kMaxStores);
    most_stores_ = last ? std::min(stores, static_cast<int>(space_.table().outputs.size())) : stores;
    if (static_cast<int>(inputs.size()) >= limits_.operators) return found;
    looks_ = inputs.size() <= Reach::kMostInputs;
    if (looks_) {
        std::array<Class, Reach::kMostInputs> classes{};
        std::ranges::transform(inputs, classes.begin(), class_of);
        if (!reach_.look({classes.data(), inputs.size()}, last ? last_ends_ : ends_, most_stores_ > 1, limits_.connected))
            return found;
        // What is too far for one walk is too far for all.
        for (std::size_t i = 0; i < inputs.size(); ++i)
            if (reach_.steps(classes[i], 1u << i) > limits_.operators - static_cast<int>(inputs.size())) return found;
    }

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
        values_[static_cast<std::size_t>(count_)] = {c, varies ? kVarying : kInvariant, 0, 1u << count_, dims_of(input)};
        of_class_[c] |= 1u << count_;
        ++count_;
    }
    inputs_ = unused_ = unused_inputs_ = count_;
    unused_varying_ = 0;
    for (int i = 0; i < count_; ++i) unused_varying_ += values_[static_cast<std::size_t>(i)].phase == kVarying;
    high_ = low_ = code_ = 0;
    if (within_bounds()) grow();
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
        for (const Partner &partner : space_.partners(values_[static_cast<std::size_t>(high)].cls)) {
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
    if (looks_) {
        const std::uint32_t loads = values_[static_cast<std::size_t>(high)].loads | (low < 0 ? 0 : values_[static_cast<std::size_t>(low)].loads);
        if (reach_.steps(made.cls, loads) > limits_.operators - count_ - 1) {
            ++counters.bound;
            return;
        }
    }
    // The same value twice is never needed: what one can do the other can, or the one that varies less.
    for (std::uint32_t twins = of_class_[made.cls]; twins; twins &= twins - 1)
        if (values_[static_cast<std::size_t>(__builtin_ctz(twins))].dims == made.dims) {
            ++counters.duplicate;
            return;
        }

    Value &x = values_[static_cast<std::size_t>(high)];
    Value &y = values_[static_cast<std::size_t>(low < 0 ? high : low)];
    const int unused = unused_, unused_inputs = unused_inputs_, unused_varying = unused_varying_;
    const int h = high_, l = low_, c = code_;
    const auto use = [&](Value &value, int place) {
        if (value.uses++ > 0) return;
        --unused_;
        unused_inputs_ -= place < inputs_;
        unused_varying_ -= value.phase == kVarying;
    };
    use(x, high);
    if (low >= 0 && low != high) use(y, low);

    const auto place = static_cast<std::size_t>(count_);
    values_[place] = {made.cls, made.phase, 0, x.loads | y.loads, made.dims};
    const auto operand = [](int value) { return value < 0 ? Step::kNoOperand : static_cast<std::uint8_t>(value); };
    steps_[place] = {partner.kind, partner.arg, operand(partner.reversed ? low : high), operand(partner.reversed ? high : low)};
    of_class_[made.cls] |= 1u << count_;
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

bool BlockSearch::make(const Partner &partner, int high, int low, Made &made) {
    const Value &x = values_[static_cast<std::size_t>(high)];
    const Free free = space_.free(x.cls);
    const auto refuse = [](std::uint64_t &counter) { return ++counter, false; };
    switch (partner.kind) {
    case StepKind::add:
    case StepKind::sub:
    case StepKind::mul:
    case StepKind::div: {
        const Value &y = values_[static_cast<std::size_t>(low)];
        if (oriented_ ? !broadcasts(x.dims, y.dims, made.dims) : !same_extents(free, space_.free(y.cls)))
            return refuse(counters.shape);
        if (!join_phases(x.phase, y.phase, made.phase)) return refuse(counters.phase);
        made.cls = partner.result;
        return true;
    }
    case StepKind::matmul: {
        const Value &y = values_[static_cast<std::size_t>(low)];
        const Free other = space_.free(y.cls);
        const Bases over = space_.sets()[partner.arg];
        if (oriented_) {
            const Value &left = partner.reversed ? y : x, &right = partner.reversed ? x : y;
            const Base inner = dim(left.dims, 0);
            if (!inner || bit(inner) != over || dim(right.dims, 1) != inner) return refuse(counters.shape);
            if (!broadcasts(with_dim(left.dims, 0, 0), with_dim(right.dims, 1, 0), made.dims)) return refuse(counters.shape);
        } else if (!same_extents(free, other) || !in_tile(free, over) || !in_tile(other, over)) {
            return refuse(counters.shape);
        }
        if (!join_phases(x.phase, y.phase, made.phase)) return refuse(counters.phase);
        made.cls = sum_in_tile(partner.result, free | other, over);
        break;
    }
    case StepKind::apply: {
        const Function &function = space_.program().functions[partner.arg];
        // A macro that sums needs its whole dimension in the tile.
        if (function.fn == Fn::rms_norm &&
            parts_of(free & ~outside_, function.base) != space_.program().parts[function.base])
            return refuse(counters.shape);
        made = {partner.result, x.phase, x.dims};
        return true;
    }
    case StepKind::sum: {
        const Bases over = space_.sets()[partner.arg];
        if (!remove_dims(x.dims, over, made.dims)) return refuse(counters.shape);
        made = {sum_in_tile(x.cls, free, over), x.phase, made.dims};
        break;
    }
    case StepKind::accumulate:
    case StepKind::accumulate_sum: {
        const unsigned looped = walk_.loop ? parts_of(free & looped_, walk_.loop) : 0;
        if (x.phase != kVarying || !looped) return refuse(counters.phase);
        made = {space_.sum(x.cls, walk_.loop, looped), kAfter, x.dims};
        if (made.cls == kNoClass || partner.kind == StepKind::accumulate) break;
        const Bases over = space_.sets()[partner.arg];
        if (!remove_dims(x.dims, over, made.dims)) return refuse(counters.shape);
        made.cls = sum_in_tile(made.cls, space_.free(made.cls), over);
        break;
    }
    }
    return made.cls != kNoClass && space_.live(made.cls) ? true : refuse(counters.table);
}

// Admissible. What is unused must be joined until so many are left as are stored, which takes a step for every pair; before
// its first join each takes some steps alone, and what varies is accumulated. In the last kernel every unused
// value is its distance from a target besides. Only there: elsewhere a kernel's own outputs are what must be reached.
// And steps come in their order, in which what stands before the last operand can only be joined or stored any more.
bool BlockSearch::within_bounds() {
    const int left = limits_.operators - count_;
    int alone = 0, after = 0, farthest = 0;
    bool gathered = unused_varying_ == 0;
    for (int i = 0; i < count_; ++i) {
        const Value &value = values_[static_cast<std::size_t>(i)];
        if (value.uses) continue;
        if (looks_) farthest = std::max(farthest, reach_.steps(value.cls, value.loads));
        const Needs &needs = (*needs_)[value.cls];
        if (i < high_ && !needs.joins && !storable(value)) return false;
        alone += needs.alone;
        gathered |= needs.alone && value.phase == kVarying;
        if (goal_ != Goal::last) continue;
        farthest = std::max(farthest, space_.distance(value.cls));
        after = std::max(after, space_.single_steps(value.cls) - needs.alone);
    }
    const int least = std::max(farthest, std::max(0, unused_ - most_stores_) + alone + std::max(after, gathered ? 0 : 1));
    if (least <= left) return true;
    if (goal_ == Goal::last && least < Space::kFar) counters.short_by = std::min(counters.short_by, least - left);
    return false;
}

// Whether limits let a kernel store this, wherever it was made.
bool BlockSearch::may_be_stored(Class c) const {
    if (limits_.whole && !space_.whole(c)) return false;
    return !limits_.unscaled || !space_.scaled(c) || space_.target(c);
}

bool BlockSearch::storable(const Value &value) const {
    if (walk_.loop ? value.phase != kAfter : value.phase == kVarying) return false;
    if (!may_be_stored(value.cls)) return false;
    // Every block of a split writes its own part.
    return !walk_.split || (parts_of(space_.free(value.cls), walk_.split) & kInGrid);
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
    for (int i = inputs_; i < count_; ++i) {
        const Value &value = values_[static_cast<std::size_t>(i)];
        if (value.uses) continue;
        if (!storable(value)) return;
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
