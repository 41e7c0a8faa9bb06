#include "bundles.hpp"

#include <algorithm>
#include <iterator>
#include <stdexcept>

#include "memo.hpp"

namespace tilesmith {

Bundles::Bundles(const Space &space, const BlockLimits &limits, int inputs, std::int64_t steps)
    : space_(space), most_(std::min(kMost, static_cast<std::size_t>(inputs))), pairs_(std::min(limits.stores, kMaxStores) > 1),
      connected_(limits.connected), lists_last_((!pairs_ || space.table().outputs.size() == 1) && inputs <= static_cast<int>(kMost)),
      steps_(steps), made_(space.classes()), done_(space.classes(), 0) {
    for (std::size_t c = 0; c < space.classes(); ++c) {
        stored_between_.push_back(may_be_stored(space, limits, Goal::between, static_cast<Class>(c)));
        stored_last_.push_back(may_be_stored(space, limits, Goal::last, static_cast<Class>(c)));
    }
}

Bundles::Id Bundles::meet(Tensor t) {
    bool fresh = false;
    Id &id = ids_.at(t, fresh);
    if (!fresh) return id;
    id = static_cast<Id>(hashes_.size());
    if (hashes_.size() >= Id(~Id{0})) throw std::invalid_argument("more than 65534 tensors stand between kernels");
    const Id met = id;
    hashes_.push_back(Memo::hash_of(t));
    classes_.push_back(class_of(t));
    last_with_.emplace_back();
    settle();
    return met;
}

void Bundles::afford(std::size_t steps) {
    if (known_ == hashes_.size()) return;
    steps_ += static_cast<std::int64_t>(steps);
    settle();
}

std::uint32_t Bundles::bundle(const Bundle &wanted) {
    bool fresh = false;
    std::uint32_t &place = places_.at(wanted.hash, fresh);
    if (fresh) {
        place = static_cast<std::uint32_t>(all_.size());
        all_.push_back(wanted);
    } else if (!std::ranges::equal(all_[place].all(), wanted.all())) {
        throw std::logic_error("two sets of tensors have one hash");
    }
    return place;
}

// Of two bundles, or none where that has too many.
std::uint32_t Bundles::united(std::uint32_t a, std::uint32_t b) {
    const Bundle &x = all_[a], &y = all_[b];
    if (!(y.mask & ~x.mask) && std::ranges::includes(x.all(), y.all())) return a;
    if (!(x.mask & ~y.mask) && std::ranges::includes(y.all(), x.all())) return b;
    std::array<Id, 2 * kMost> both{};
    const auto end = std::ranges::set_union(x.all(), y.all(), both.begin()).out;
    const auto size = static_cast<std::size_t>(end - both.begin());
    if (size > most_) return kNone;
    Bundle made;
    std::copy(both.begin(), end, made.members.begin());
    made.size = static_cast<std::uint8_t>(size);
    made.mask = x.mask | y.mask;
    for (const Id id : made.all()) made.hash += hashes_[id];
    return bundle(made);
}

void Bundles::make(Class c, std::uint32_t bundle) {
    bool fresh = false;
    has_.at(std::uint64_t{bundle} << 16 | c, fresh);
    if (!fresh) return;
    ++made_count_;
    Bundle &here = all_[bundle];
    const From from{here.mask, bundle, here.size};
    made_[c].push_back(from);
    work_.push_back({c, from});
    here.between |= stored_between_[c] != 0;
    if (!stored_last_[c] || here.last) return;
    here.last = true;
    for (const Id id : here.all()) last_with_[id].push_back(bundle);
}

// What follows. Each two meet once: when the later of them is looked at.
void Bundles::settle() {
    while (steps_ > 0 && made_count_ < kMostMade) {
        if (next_ == work_.size()) {
            work_.clear();
            next_ = 0;
            known_ = begun_;
            if (begun_ == hashes_.size()) return;
            Bundle alone;
            alone.members[0] = static_cast<Id>(begun_);
            alone.size = 1;
            alone.mask = std::uint64_t{1} << begun_ % 64;
            alone.hash = hashes_[begun_];
            make(classes_[begun_++], bundle(alone));
        }
        const auto [c, from] = work_[next_++];
        ++done_[c];
        --steps_;
        for (const Class made : space_.singles(c)) make(made, from.bundle);
        for (const Space::Join &join : space_.joins(c)) {
            const std::size_t others = done_[join.other];
            steps_ -= static_cast<std::int64_t>(others);
            for (std::size_t i = 0; i < others; ++i) {
                const From other = made_[join.other][i];
                // One of as many as there may be takes no more.
                if (from.size == most_ && (other.mask & ~from.mask)) continue;
                if (other.size == most_ && (from.mask & ~other.mask)) continue;
                const std::uint32_t both = united(from.bundle, other.bundle);
                if (both != kNone) make(join.result, both);
            }
        }
    }
}

bool Bundles::any(std::span<const std::uint64_t> hashes, bool last) const {
    const auto stores = [&](unsigned some) {
        std::uint64_t hash = 0;
        for (; some; some &= some - 1) hash += hashes[static_cast<std::size_t>(__builtin_ctz(some))];
        const std::uint32_t *place = places_.find(hash);
        return place && (last ? all_[*place].last : all_[*place].between);
    };
    const unsigned all = (1u << hashes.size()) - 1;
    if (stores(all)) return true;
    // Two stores, that have all between them.
    for (unsigned x = pairs_ && !(last && lists_last_) ? all - 1 : 0; x > 0; --x) {
        if (!stores(x)) continue;
        for (unsigned more = x;; more = (more - 1) & x) {
            const unsigned y = (all & ~x) | more;
            if (y <= x && (more || !connected_) && stores(y)) return true;
            if (!more) break;
        }
    }
    return false;
}

} // namespace tilesmith
