#include "reach.hpp"

#include <algorithm>
#include <bit>

namespace tilesmith {
namespace {

// Sets of inputs that have input i, as a set of sets.
constexpr std::array<std::uint64_t, Reach::kMostInputs> kWith{0xaaaaaaaaaaaaaaaau, 0xccccccccccccccccu, 0xf0f0f0f0f0f0f0f0u,
                                                              0xff00ff00ff00ff00u, 0xffff0000ffff0000u, 0xffffffff00000000u};

} // namespace

Reach::Reach(const Space &space)
    : space_(space), made_(space.classes(), 0), fresh_(space.classes(), 0), ended_(space.classes(), 0),
      steps_(space.classes() << kMostInputs, kNever) {}

// The unions of a set of one kind with one of the other.
Reach::Sets Reach::joined(Sets a, Sets b) const {
    Sets all = 0;
    if (std::popcount(a) > std::popcount(b)) std::swap(a, b);
    for (; a; a &= a - 1) {
        Sets both = b;
        for (unsigned members = static_cast<unsigned>(std::countr_zero(a)); members; members &= members - 1) {
            const int i = std::countr_zero(members);
            both = (both & kWith[static_cast<std::size_t>(i)]) | ((both & ~kWith[static_cast<std::size_t>(i)]) << (1 << i));
        }
        all |= both;
    }
    return all;
}

// The sets whose union with one of the others is among the results.
Reach::Sets Reach::without(Sets results, Sets others) const {
    Sets all = 0;
    for (; others; others &= others - 1) {
        Sets rest = results;
        for (unsigned members = static_cast<unsigned>(std::countr_zero(others)); members; members &= members - 1) {
            const int i = std::countr_zero(members);
            rest &= kWith[static_cast<std::size_t>(i)];
            rest |= rest >> (1 << i);
        }
        all |= rest;
    }
    return all;
}

void Reach::add(Class c, Sets sets) {
    sets &= ~made_[c];
    if (!sets) return;
    if (!made_[c]) touched_.push_back(c);
    if (!fresh_[c]) work_.push_back(c);
    made_[c] |= sets;
    fresh_[c] |= sets;
}

bool Reach::look(std::span<const Class> inputs, const std::vector<std::uint8_t> &ends, bool pairs, bool connected) {
    for (const Class c : touched_) {
        made_[c] = ended_[c] = 0;
        std::fill_n(steps_.begin() + static_cast<std::ptrdiff_t>(std::size_t{c} << inputs_), std::size_t{1} << inputs_, kNever);
    }
    touched_.clear();
    inputs_ = inputs.size();
    for (std::size_t i = 0; i < inputs.size(); ++i) add(inputs[i], Sets{1} << (1u << i));
    while (!work_.empty()) {
        const Class c = work_.back();
        work_.pop_back();
        const Sets fresh = fresh_[c];
        fresh_[c] = 0;
        for (const Class next : space_.singles(c)) add(next, fresh);
        for (const Space::Join &join : space_.joins(c))
            if (made_[join.other]) add(join.result, joined(fresh, made_[join.other]));
    }
    if (!any_end(ends, pairs, connected)) return false;
    back();
    return true;
}

bool Reach::any_end(const std::vector<std::uint8_t> &ends, bool pairs, bool connected) {
    const std::uint32_t all = (1u << inputs_) - 1;
    Sets stored = 0; // what some end is made of
    for (const Class c : touched_)
        if (ends[c]) stored |= made_[c];
    // What another store goes with.
    Sets good = Sets{1} << all;
    for (Sets left = pairs ? stored : 0; left; left &= left - 1) {
        const auto own = static_cast<std::uint32_t>(std::countr_zero(left));
        for (std::uint32_t other = 1; other <= all; ++other)
            if ((own | other) == all && (!connected || (own & other)) && (stored >> other & 1)) good |= Sets{1} << own;
    }
    level_.clear();
    for (const Class c : touched_)
        if (ends[c] && (made_[c] & good)) reach_back(c, good, 0);
    level_.swap(next_);
    return !level_.empty();
}

void Reach::reach_back(Class c, Sets sets, std::uint8_t step) {
    sets &= made_[c] & ~ended_[c];
    if (!sets) return;
    ended_[c] |= sets;
    next_.push_back({c, sets});
    for (; sets; sets &= sets - 1)
        steps_[(std::size_t{c} << inputs_) + static_cast<std::size_t>(std::countr_zero(sets))] = step;
}

void Reach::back() {
    for (std::uint8_t step = 1; !level_.empty(); ++step) {
        next_.clear();
        for (const Level &at : level_) {
            for (const Class from : space_.singles_to(at.c)) reach_back(from, at.sets, step);
            for (const Space::Pair &pair : space_.joins_to(at.c)) {
                if (!made_[pair.a] || !made_[pair.b]) continue;
                reach_back(pair.a, without(at.sets, made_[pair.b]), step);
                reach_back(pair.b, without(at.sets, made_[pair.a]), step);
            }
        }
        level_.swap(next_);
    }
}

} // namespace tilesmith
