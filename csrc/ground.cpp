#include "ground.hpp"

namespace tilesmith {
namespace {

// Bits of every base that has any.
constexpr Free any_part(Free free) { return (free | free >> 1 | free >> 2) & kEachInBlock; }

} // namespace

Ground::Ground(const Space &space, const Walk &walk)
    : space_(space), walk_(walk), looped_(walk.loop ? free_parts(walk.loop, walk.loop_parts) : 0),
      outside_(looped_ | (walk.split ? free_parts(walk.split, kInGrid) : 0)), oriented_(space.options().shapes == Shapes::oriented),
      known_(space.classes(), 0), refused_(space.classes()), results_(space.all_partners(), kNoClass),
      first_(kPhases * space.classes(), 0), end_(kPhases * space.classes(), 0) {}

void Ground::list(Class c) {
    known_[c] = 1;
    const std::span<const Partner> partners = space_.partners(c);
    Class *results = results_.data() + space_.first_partner(c);
    for (std::size_t i = 0; i < partners.size(); ++i) results[i] = made_by(partners[i], c, refused_[c]);
    for (std::uint8_t phase = 0; phase < kPhases; ++phase) {
        first_[node(c, phase)] = static_cast<std::uint32_t>(edges_.size());
        for (std::size_t i = 0; i < partners.size(); ++i) {
            const Class result = results[i];
            if (result == kNoClass) continue;
            const auto place = static_cast<std::uint32_t>(space_.first_partner(c) + i);
            if (partners[i].other == kNoClass) {
                if (!gathers(partners[i].kind)) edges_.push_back({Reach::kNone, node(result, phase), place});
                else if (phase == kVarying) edges_.push_back({Reach::kNone, node(result, kAfter), place});
                continue;
            }
            std::uint8_t joined = 0;
            for (std::uint8_t other = 0; other < kPhases; ++other)
                if (join(phase, other, joined)) edges_.push_back({node(partners[i].other, other), node(result, joined), place});
        }
        end_[node(c, phase)] = static_cast<std::uint32_t>(edges_.size());
    }
}

// Dimensions that both have must have the same parts in the block's tile, or the tiles differ in extent.
bool Ground::same_extents(Free a, Free b) const {
    const Free x = a & ~outside_, y = b & ~outside_;
    const Free both = any_part(x) & any_part(y);
    return ((x ^ y) & both * 7) == 0;
}

// Whether a value has every base of a set within its tile.
bool Ground::in_tile(Free free, Bases over) const {
    for (; over; over &= over - 1)
        if (!parts_of(free & ~outside_, static_cast<Base>(__builtin_ctz(over)))) return false;
    return true;
}

// The sum over all parts of some bases that are in the tile; none where a base has no such part.
Class Ground::sum_in_tile(Class c, Free free, Bases over) const {
    for (; over && c != kNoClass; over &= over - 1) {
        const Base base = static_cast<Base>(__builtin_ctz(over));
        const unsigned parts = parts_of(free & ~outside_, base);
        c = parts ? space_.sum(c, base, parts) : kNoClass;
    }
    return c;
}

Class Ground::made_by(const Partner &partner, Class c, Refused &refused) const {
    const Free free = space_.free(c);
    const auto refuse = [](std::uint32_t &count) { return ++count, kNoClass; };
    Class made = partner.result;
    switch (partner.kind) {
    case StepKind::add:
    case StepKind::sub:
    case StepKind::mul:
    case StepKind::div:
        return oriented_ || same_extents(free, space_.free(partner.other)) ? made : refuse(refused.shape);
    case StepKind::matmul: {
        const Free other = space_.free(partner.other);
        const Bases over = space_.sets()[partner.arg];
        if (!oriented_ && (!same_extents(free, other) || !in_tile(free, over) || !in_tile(other, over)))
            return refuse(refused.shape);
        made = sum_in_tile(partner.result, free | other, over);
        break;
    }
    case StepKind::apply: {
        const Function &function = space_.program().functions[partner.arg];
        // A macro that sums needs its whole dimension in the tile.
        const unsigned whole = space_.program().parts[function.base];
        return function.fn != Fn::rms_norm || parts_of(free & ~outside_, function.base) == whole ? made : refuse(refused.shape);
    }
    case StepKind::sum: made = sum_in_tile(c, free, space_.sets()[partner.arg]); break;
    case StepKind::accumulate:
    case StepKind::accumulate_sum: {
        const unsigned looped = walk_.loop ? parts_of(free & looped_, walk_.loop) : 0;
        if (!looped) return refuse(refused.phase);
        made = space_.sum(c, walk_.loop, looped);
        if (made != kNoClass && partner.kind == StepKind::accumulate_sum)
            made = sum_in_tile(made, space_.free(made), space_.sets()[partner.arg]);
        break;
    }
    }
    return made != kNoClass && space_.live(made) ? made : refuse(refused.table);
}

} // namespace tilesmith
