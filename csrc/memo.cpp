#include "memo.hpp"

#include <algorithm>
#include <set>
#include <stdexcept>

namespace tilesmith {

Memo::Entry &Memo::at(std::uint64_t key, bool &fresh) {
    Shard &shard = this->shard(key);
    const std::lock_guard lock(shard.mutex);
    Entry *&place = shard.places.at(key, fresh);
    if (fresh) place = &shard.entries.emplace_back(key);
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
    if (!entry) throw std::invalid_argument("a message names a block search that is not known");
    entry->wait();
    return *entry;
}

std::vector<const Memo::Entry *> Memo::filled(std::size_t from) {
    const std::lock_guard lock(mutex_);
    return {filled_.begin() + static_cast<std::ptrdiff_t>(std::min(from, filled_.size())), filled_.end()};
}

std::size_t Memo::tensors() {
    std::set<Tensor> seen;
    for (const Entry *entry : filled(0)) {
        seen.insert(entry->kernels().inputs.begin(), entry->kernels().inputs.end());
        for (const Signature &signature : entry->kernels().signatures)
            for (const Tensor output : signature.outputs)
                if (output != kNoTensor) seen.insert(output);
    }
    return seen.size();
}

const Kernels &Catalogue::kernels(std::span<const Tensor> inputs, std::uint64_t hash, bool last) {
    bool fresh = false;
    const std::uint64_t key = Memo::key(hash, last);
    const Kernels *&known = known_.at(key, fresh);
    if (fresh) {
        Memo::Entry &entry = memo_.at(key, fresh);
        if (fresh) {
            Kernels found;
            found.inputs.assign(inputs.begin(), inputs.end());
            try {
                found = search_.run(inputs, last ? Goal::last : Goal::between);
            } catch (...) {
                memo_.fill(entry, std::move(found));
                throw;
            }
            memo_.fill(entry, std::move(found));
        } else if (!entry.ready()) {
            const Activity before = track_.to(Activity::waiting);
            entry.wait();
            track_.to(before);
        }
        known = &entry.kernels();
    }
    if (!std::ranges::equal(known->inputs, inputs)) throw std::logic_error("two sets of tensors have one hash");
    return *known;
}

} // namespace tilesmith
