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
    : made_(nodes, 0), touched_mark_(nodes, 0), seen_(nodes, 0), steps_(nodes << kGroups, kNever),
      singles_(nodes << kGroups, kNever) {}

void Reach::clear(std::size_t inputs) {
    const std::size_t sets = std::size_t{all_} + 1;
    for (const Node node : touched_) {
        made_[node] = touched_mark_[node] = seen_[node] = 0;
        std::fill_n(&steps_[at(node, 0)], sets, kNever);
        std::fill_n(&singles_[at(node, 0)], sets, kNever);
    }
    touched_.clear();
    ends_.clear();
    leads_.clear();
    next_ = 0;
    all_ = (1u << std::min<std::size_t>(inputs, kGroups)) - 1;
}

void Reach::touch(Node node) {
    if (touched_mark_[node]) return;
    touched_mark_[node] = 1;
    touched_.push_back(node);
}

void Reach::start(Node node, std::uint32_t input) {
    touch(node);
    made_[node] |= Sets{1} << groups(1u << input);
}

Reach::Node Reach::next() {
    if (next_ == touched_.size()) return kNone;
    seen_[touched_[next_]] = 1;
    return touched_[next_++];
}

void Reach::lead(Node a, Node b, Node to) {
    touch(to);
    leads_.push_back({a, b, to});
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
    for (bool changed = true; changed;) {
        changed = false;
        for (const Lead &lead : leads_) {
            const Sets made = lead.b == kNone ? made_[lead.a] : joined(made_[lead.a], made_[lead.b]);
            changed |= (made & ~made_[lead.to]) != 0;
            made_[lead.to] |= made;
        }
    }
    if (!find_ends(pairs, connected)) return false;
    for (bool changed = true; changed;) {
        changed = false;
        for (std::size_t i = leads_.size(); i-- > 0;) changed |= relax(leads_[i]);
    }
    return true;
}

bool Reach::find_ends(bool pairs, bool connected) {
    Sets stored = 0; // what some end is made of
    for (const Node node : ends_) stored |= made_[node];
    Sets good = Sets{1} << all_;
    for (Sets left = pairs ? stored : 0; left; left &= left - 1)
        for (std::uint32_t other = 1; other <= all_; ++other)
            if ((first(left) | other) == all_ && (!connected || (first(left) & other)) && (stored >> other & 1))
                good |= left & -left;
    for (const Node node : ends_)
        for (Sets left = made_[node] & good; left; left &= left - 1)
            steps_[at(node, first(left))] = singles_[at(node, first(left))] = 0;
    return (stored & good) != 0;
}

bool Reach::relax(const Lead &lead) {
    bool changed = false;
    const auto lower = [&](std::uint8_t &known, int steps) {
        if (steps >= known) return;
        known = static_cast<std::uint8_t>(steps);
        changed = true;
    };
    for (Sets a = made_[lead.a]; a; a &= a - 1) {
        const std::size_t from = at(lead.a, first(a));
        if (lead.b == kNone) {
            const std::size_t to = at(lead.to, first(a));
            lower(steps_[from], steps_[to] + 1);
            lower(singles_[from], singles_[to] + 1);
            continue;
        }
        for (Sets b = made_[lead.b]; b; b &= b - 1) {
            const std::size_t with = at(lead.b, first(b)), to = at(lead.to, first(a) | first(b));
            lower(steps_[from], steps_[to] + 1);
            lower(steps_[with], steps_[to] + 1);
            lower(singles_[from], singles_[to]);
            lower(singles_[with], singles_[to]);
        }
    }
    return changed;
}

std::uint8_t Reach::steps(Node a, Node b, Node to) const {
    std::uint8_t least = kNever;
    for (Sets x = made_[a]; x; x &= x - 1) {
        if (b == kNone) least = std::min(least, steps_[at(to, first(x))]);
        else
            for (Sets y = made_[b]; y; y &= y - 1) least = std::min(least, steps_[at(to, first(x) | first(y))]);
    }
    return least;
}

} // namespace tilesmith
