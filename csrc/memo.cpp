#include "memo.hpp"

#include <algorithm>
#include <stdexcept>
#include <utility>

namespace tilesmith {

void Memo::deal(int rank, int ranks) {
    rank_ = rank;
    ranks_ = ranks;
}

int Memo::maker(std::uint64_t key) const {
    const int ranks = ranks_.load(std::memory_order_acquire);
    return ranks < 2 ? rank_ : static_cast<int>(mix(key) % static_cast<std::uint64_t>(ranks));
}

void Memo::want(Wanted wanted) {
    const std::lock_guard lock(mutex_);
    wanted_.push_back(std::move(wanted));
}

std::vector<Wanted> Memo::wanted() {
    const std::lock_guard lock(mutex_);
    return std::exchange(wanted_, {});
}

Memo::Entry &Memo::at(std::uint64_t key, bool &fresh, bool elsewhere) {
    Shard &shard = this->shard(key);
    const std::lock_guard lock(shard.mutex);
    Entry *&place = shard.places.at(key, fresh);
    if (fresh) place = &shard.entries.emplace_back(key, elsewhere);
    return *place;
}

void Memo::fill(Entry &entry, Kernels kernels, bool learned) {
    entry.kernels_ = std::move(kernels);
    entry.learned_ = learned;
    {
        const std::lock_guard lock(mutex_);
        filled_.push_back(&entry);
    }
    entry.ready_.store(true, std::memory_order_release);
    entry.ready_.notify_all();
}

const Memo::Entry &Memo::entry(std::uint64_t key) {
    Shard &shard = this->shard(key);
    const Entry *entry = nullptr;
    {
        const std::lock_guard lock(shard.mutex);
        if (Entry *const *place = shard.places.find(key)) entry = *place;
    }
    if (!entry || (entry->elsewhere() && !entry->ready()))
        throw std::invalid_argument("a message names a block search that is not known");
    entry->wait();
    return *entry;
}

std::vector<const Memo::Entry *> Memo::filled(std::size_t from) {
    const std::lock_guard lock(mutex_);
    return {filled_.begin() + static_cast<std::ptrdiff_t>(std::min(from, filled_.size())), filled_.end()};
}

void Catalogue::fill(Memo::Entry &entry, std::span<const Tensor> inputs) {
    Kernels found;
    try {
        found = search_.run(inputs, Memo::last(entry.key()) ? Goal::last : Goal::between);
    } catch (...) {
        memo_.fill(entry, {{inputs.begin(), inputs.end()}, {}, {}});
        throw;
    }
    memo_.fill(entry, std::move(found));
}

bool Catalogue::make(const Wanted &wanted) {
    bool fresh = false;
    Memo::Entry &entry = memo_.at(wanted.key, fresh);
    if (entry.ready() || !(fresh || wanted.lent)) return false;
    fill(entry, wanted.inputs);
    return entry.elsewhere();
}

const Kernels *Catalogue::ask(std::uint64_t key, std::span<const Tensor> inputs) {
    // Most sets lead to nothing: all of these are one, so that looking at it costs no way to memory.
    static const Kernels nothing;
    bool fresh = false;
    if (inputs.empty()) return known_.at(key, fresh) = &nothing;
    Memo::Entry &entry = memo_.at(key, fresh, memo_.theirs(key));
    if (fresh && entry.elsewhere()) {
        memo_.want({key, {inputs.begin(), inputs.end()}});
    } else if (fresh) {
        fill(entry, inputs);
    }
    if (!entry.ready() && entry.elsewhere()) {
        missed_ = &entry;
        return nullptr;
    }
    if (!entry.ready()) {
        const Activity before = track_.to(Activity::waiting);
        entry.wait();
        track_.to(before);
    }
    const Kernels &kernels = entry.kernels();
    if (!std::ranges::equal(kernels.inputs, inputs)) throw std::logic_error("two sets of tensors have one hash");
    return known_.at(key, fresh) = kernels.signatures.empty() ? &nothing : &kernels;
}

} // namespace tilesmith
