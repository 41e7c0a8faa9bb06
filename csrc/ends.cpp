#include "ends.hpp"

#include <algorithm>
#include <functional>

namespace tilesmith {
namespace {

// The unions of a set of one kind with one of the other.
std::uint32_t joined(std::uint32_t a, std::uint32_t b) {
    // Sets that have class i, as a set of sets.
    constexpr std::array<std::uint32_t, Few::kMost> with{0xaaaa, 0xcccc, 0xf0f0, 0xff00};
    std::uint32_t all = 0;
    for (; b; b &= b - 1) {
        std::uint32_t both = a;
        for (unsigned members = static_cast<unsigned>(__builtin_ctz(b)); members; members &= members - 1) {
            const auto i = static_cast<std::size_t>(__builtin_ctz(members));
            both = (both & with[i]) | ((both & ~with[i]) << (1u << i));
        }
        all |= both;
    }
    return all;
}

} // namespace

Ends::Ends(const Space &space, const BlockLimits &limits, int inputs, int most)
    : space_(space), inputs_(inputs), pairs_(limits.stores > 1), several_targets_(space.table().outputs.size() > 1),
      known_(static_cast<std::size_t>(most)), made_(space.classes(), kNothing), places_of_(space.classes(), 0),
      waits_(space.classes() / 64 + 1, 0) {
    for (std::size_t c = 0; c < space.classes(); ++c)
        if (space.live(static_cast<Class>(c))) order_.push_back(static_cast<Class>(c));
    std::ranges::stable_sort(order_, std::greater{}, [&](Class c) { return space.distance(c); });
    for (std::size_t place = 0; place < order_.size(); ++place) places_of_[order_[place]] = static_cast<std::uint16_t>(place);
    for (std::size_t c = 0; c < space.classes(); ++c)
        storable_.push_back(may_be_stored(space, limits, Goal::between, static_cast<Class>(c)));
}

bool Ends::reachable(Key classes, int kernels) {
    if (classes == Few::kNone) return true;
    FlatMap<std::uint8_t> &known = known_[static_cast<std::size_t>(kernels) - 1];
    if (const std::uint8_t *found = known.find(classes)) return *found;
    const bool ends = reduces(classes, kernels);
    bool fresh = false;
    known.at(classes, fresh) = ends;
    return ends;
}

// Whether one of the kernels makes of some of them what the others can end, with the rest.
bool Ends::reduces(Key classes, int kernels) {
    const Few given(classes);
    const unsigned all = given.all();
    for (unsigned left = given.size() > 1 ? all : 0; left; left &= left - 1)
        if (!reachable(given.some(all & ~(left & -left)), kernels)) return false;
    if (kernels == 1) {
        if (static_cast<int>(given.size()) > inputs_) return false;
        make_all(classes);
        Sets stored = 0;
        for (const Class target : space_.table().outputs) stored |= made_[target];
        if (pairs_ && several_targets_) stored = joined(stored, stored);
        return stored >> all & 1;
    }
    const int others = kernels - 1;
    if (reachable(classes, others)) return true;
    for (unsigned used = 1; used <= all; ++used) {
        const Key rest = given.some(all & ~used);
        if (__builtin_popcount(used) > inputs_ || !reachable(rest, others)) continue;
        for (const Class made : made_of(given.some(used)))
            if (reachable(after(rest, made), others)) return true;
        // Two stores, that have between them what is used: one has the highest of it.
        for (unsigned second = pairs_ ? (used - 1) & used : 0; second; second = (second - 1) & used) {
            const unsigned first = used & ~second;
            if (first < second) continue;
            for (const Class one : made_of(given.some(first))) {
                const Key more = after(rest, one);
                if (!reachable(more, others)) continue;
                for (const Class other : made_of(given.some(second)))
                    if (reachable(after(more, other), others)) return true;
            }
        }
    }
    return false;
}

// What a kernel that is not the last can store, made of all of these.
const std::vector<Class> &Ends::made_of(Key classes) {
    bool fresh = false;
    std::uint32_t &place = places_.at(classes, fresh);
    if (!fresh) return stores_[place];
    place = static_cast<std::uint32_t>(stores_.size());
    std::vector<Class> &stores = stores_.emplace_back();
    const Sets all = make_all(classes);
    for (const Class c : touched_)
        if (storable_[c] && (made_[c] & all)) stores.push_back(c);
    return stores;
}

void Ends::make(Class c, Sets sets) {
    if (!(sets & ~made_[c])) return;
    if (made_[c] == kNothing) touched_.push_back(c);
    made_[c] |= sets;
    first_ = std::min<std::size_t>(first_, places_of_[c] / 64u);
    waits_[places_of_[c] / 64u] |= std::uint64_t{1} << places_of_[c] % 64u;
}

Ends::Sets Ends::make_all(Key classes) {
    for (const Class c : touched_) made_[c] = kNothing;
    touched_.clear();
    const Few given(classes);
    for (std::size_t i = 0; i < given.size(); ++i) make(given[i], Sets{1} << (1u << i));
    for (std::size_t word = 0; word < waits_.size();) {
        if (!waits_[word]) {
            ++word;
            continue;
        }
        const Class c = order_[64 * word + static_cast<std::size_t>(__builtin_ctzll(waits_[word]))];
        waits_[word] &= waits_[word] - 1;
        const Sets sets = made_[c];
        for (const Class made : space_.singles(c)) make(made, sets);
        for (const Space::Join &join : space_.joins(c)) {
            const Sets others = made_[join.other];
            make(join.result, others == kNothing ? sets : joined(sets, others));
        }
        // What was made may lie before it.
        word = std::min<std::size_t>(word, first_);
        first_ = ~std::size_t{0};
    }
    return Sets{1} << (given.all());
}

} // namespace tilesmith
