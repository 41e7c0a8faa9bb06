#include "reach.hpp"

#include <algorithm>
#include <bit>

namespace tilesmith {
namespace {

// Sets of groups that have group i, as a set of sets.
constexpr std::array<std::uint64_t, Reach::kGroups> kWith{0xaaaaaaaaaaaaaaaau, 0xccccccccccccccccu, 0xf0f0f0f0f0f0f0f0u,
                                                          0xff00ff00ff00ff00u, 0xffff0000ffff0000u, 0xffffffff00000000u};

std::uint32_t first(std::uint64_t sets) { return static_cast<std::uint32_t>(std::countr_zero(sets)); }

} // namespace

Reach::Reach(std::size_t nodes)
    : made_(nodes, 0), touched_mark_(nodes, 0), seen_(nodes, 0), round_(nodes, 0), far_(nodes << kGroups) {}

void Reach::clear(std::size_t inputs) {
    const std::size_t sets = std::size_t{all_} + 1;
    for (const Node node : touched_) {
        made_[node] = touched_mark_[node] = seen_[node] = 0;
        std::fill_n(&far_[at(node, 0)], sets, Far{});
    }
    touched_.clear();
    ends_.clear();
    leads_.clear();
    next_ = 0;
    all_ = (1u << std::min<std::size_t>(inputs, kGroups)) - 1;
}

void Reach::start(Node node, std::uint32_t input) {
    touch(node);
    made_[node] |= Sets{1} << groups(1u << input);
}

// The unions of a set of one kind with one of the other.
Reach::Sets Reach::joined(Sets a, Sets b) {
    Sets all = 0;
    if (!(b & (b - 1))) std::swap(a, b);
    for (; a; a &= a - 1) {
        Sets both = b;
        for (std::uint32_t members = first(a); members; members &= members - 1) {
            const auto i = static_cast<std::size_t>(std::countr_zero(members));
            both = (both & kWith[i]) | ((both & ~kWith[i]) << (std::size_t{1} << i));
        }
        all |= both;
    }
    return all;
}

bool Reach::settle(bool pairs, bool connected) {
    // Only what was changed in the last round, or already in this one, can change others.
    for (const Node node : touched_) round_[node] = 0;
    std::uint8_t round = 0;
    for (bool changed = true; changed;) {
        changed = false;
        if (round < kNever) ++round;
        for (const Lead &lead : leads_) {
            if (round_[lead.a] + 1 < round && (lead.b == kNone || round_[lead.b] + 1 < round)) continue;
            const Sets made = lead.b == kNone ? made_[lead.a] : joined(made_[lead.a], made_[lead.b]);
            if (!(made & ~made_[lead.to])) continue;
            made_[lead.to] |= made;
            round_[lead.to] = round;
            changed = true;
        }
    }
    if (!find_ends(pairs, connected)) return false;
    for (const Node node : touched_) round_[node] = 0;
    round = 0;
    for (bool changed = true; changed;) {
        changed = false;
        if (round < kNever) ++round;
        for (std::size_t i = leads_.size(); i-- > 0;)
            if (round_[leads_[i].to] + 1 >= round) changed |= relax(leads_[i], round);
    }
    return true;
}

bool Reach::find_ends(bool pairs, bool connected) {
    Sets stored = 0; // what some end is made of
    for (const Node node : ends_) stored |= made_[node];
    Sets good = Sets{1} << all_;
    for (Sets left = pairs ? stored : 0; left; left &= left - 1)
        for (Sets others = stored; others; others &= others - 1)
            if ((first(left) | first(others)) == all_ && (!connected || (first(left) & first(others)))) good |= left & -left;
    for (const Node node : ends_)
        for (Sets left = made_[node] & good; left; left &= left - 1) far_[at(node, first(left))] = {0, 0};
    return (stored & good) != 0;
}

bool Reach::relax(const Lead &lead, std::uint8_t round) {
    bool changed = false;
    const auto lower = [&](Node node, std::uint32_t groups, const Far &to, int single) {
        Far &known = far_[at(node, groups)];
        if (to.steps + 1 >= known.steps && to.singles + single >= known.singles) return;
        known.steps = static_cast<std::uint8_t>(std::min<int>(known.steps, to.steps + 1));
        known.singles = static_cast<std::uint8_t>(std::min<int>(known.singles, to.singles + single));
        round_[node] = round;
        changed = true;
    };
    for (Sets a = made_[lead.a]; a; a &= a - 1) {
        if (lead.b == kNone) {
            lower(lead.a, first(a), far_[at(lead.to, first(a))], 1);
            continue;
        }
        for (Sets b = made_[lead.b]; b; b &= b - 1) {
            const Far to = far_[at(lead.to, first(a) | first(b))];
            lower(lead.a, first(a), to, 0);
            lower(lead.b, first(b), to, 0);
        }
    }
    return changed;
}

std::uint8_t Reach::steps(Node a, Node b, Node to) const {
    std::uint8_t least = kNever;
    for (Sets x = made_[a]; x; x &= x - 1) {
        if (b == kNone) least = std::min(least, far_[at(to, first(x))].steps);
        else
            for (Sets y = made_[b]; y; y &= y - 1) least = std::min(least, far_[at(to, first(x) | first(y))].steps);
    }
    return least;
}

} // namespace tilesmith
