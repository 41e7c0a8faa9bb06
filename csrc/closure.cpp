#include "closure.hpp"

#include <algorithm>
#include <bit>
#include <iterator>
#include <stdexcept>

#ifdef _OPENMP
#include <omp.h>
#endif

#include "kernels.hpp"
#include "ledger.hpp"

namespace tilesmith {
namespace {

int this_worker() {
#ifdef _OPENMP
    return omp_get_thread_num();
#else
    return 0;
#endif
}

} // namespace

// Joined -----------------------------------------------------------------------------------------------------------

Joined::Joined(const Space &space, int most) : joins_(space), most_(static_cast<std::size_t>(most)) {
    if (most_ > Joins::kMost) throw std::invalid_argument("a kernel of the closure has at most 8 inputs");
}

void Joined::add(Class c) {
    joins_.make_alone(c, scratch_);
    bool fresh = false;
    places_.at(mix(count_++), fresh) = &known_.emplace_back(std::move(scratch_));
}

bool Joined::reach(std::span<const std::uint32_t> set, std::span<const Joins::Made *const> parts) {
    if (set.size() == most_) return Joins::any(parts);
    if (!joins_.make(parts, scratch_)) return false;
    std::uint64_t key = 0;
    for (const std::uint32_t member : set) key += mix(member);
    bool fresh = false;
    places_.at(key, fresh) = &known_.emplace_back(std::move(scratch_));
    return true;
}

bool Joined::joins(std::span<const std::uint32_t> set) {
    if (set.size() == 1) return true;
    const std::size_t all = (std::size_t{1} << set.size()) - 1;
    std::array<std::uint64_t, 1 << Joins::kMost> keys;
    Parts parts;
    keys[0] = 0;
    parts[0] = parts[all] = nullptr;
    for (std::size_t part = 1; part < all; ++part) {
        keys[part] = keys[part & (part - 1)] + mix(set[static_cast<std::size_t>(std::countr_zero(part))]);
        const Joins::Made *const *known = places_.find(keys[part]);
        parts[part] = known ? *known : nullptr;
    }
    if (reach(set, {parts.data(), all + 1})) return true;
    // Two stores, of parts that overlap and cover the set.
    for (std::size_t x = 1; x < all; ++x) {
        if (!parts[x]) continue;
        for (std::size_t more = x; more; more = (more - 1) & x) {
            const std::size_t y = (all & ~x) | more;
            if (y <= x && y < all && parts[y]) return true;
        }
    }
    return false;
}

// The closure ------------------------------------------------------------------------------------------------------

Closure::Closure(const Space &space, const ClosureLimits &limits, Control &control, const Team &team)
    : space_(space), limits_(limits), control_(control), team_(team) {
    limits_.block.connected |= limits.filtered;
    limits_.block.unscaled |= limits.filtered;
    limits_.block.whole |= limits.filtered;
    workers_.resize(static_cast<std::size_t>(team.threads));
}

void Closure::add(Tensor t) {
    // The only target is the end; of several one may lead to another.
    if (space_.target(class_of(t)) && space_.table().outputs.size() == 1) {
        reached_ = true;
        return;
    }
    for (const Class name : space_.names_of(class_of(t))) {
        const Tensor named = tensor(name, dims_of(t));
        if (std::ranges::find(tensors_, named) == tensors_.end()) tensors_.push_back(named);
    }
}

void Closure::run() {
    for (const Tensor input : program_inputs(space_)) add(input);
    Joined joins(space_, limits_.inputs);
    std::size_t known = 0;
    while (known < tensors_.size() && !control_.stopped()) {
        ++counted_.rounds;
        const std::size_t before = known;
        for (; known < tensors_.size(); ++known) joins.add(class_of(tensors_[known]));
        // Sets with at least one tensor of this round, the smaller ones first: joins of sets stand on those of parts.
        for (std::size_t size = 1; size <= static_cast<std::size_t>(limits_.inputs); ++size) {
            std::vector<std::uint32_t> sets;
            std::vector<std::uint32_t> set(size);
            const auto extend = [&](const auto &self, std::size_t place, std::size_t from) -> void {
                if (place == size) {
                    if (set.back() < before) return;
                    ++counted_.subsets;
                    if ((counted_.subsets & 4095) == 0) control_.poll();
                    if (!limits_.filtered || joins.joins(set)) sets.insert(sets.end(), set.begin(), set.end());
                    return;
                }
                for (std::size_t t = from; t < known && !control_.stopped(); ++t) {
                    set[place] = static_cast<std::uint32_t>(t);
                    self(self, place + 1, t + 1);
                }
            };
            extend(extend, 0, 0);
            search(sets, size);
        }
    }
}

void Closure::search(const Sets &sets, std::size_t size) {
    for (Kernels &kernels : team_.ranks ? search_together(sets, size) : search_here(sets, size)) {
        if (kernels.signatures.empty()) continue;
        for (const Signature &signature : kernels.signatures)
            for (const Tensor output : signature.outputs)
                if (output != kNoTensor) add(output);
        kernels_.push_back(std::move(kernels));
    }
}

Kernels Closure::search(const Sets &sets, std::size_t size, std::size_t place, BlockSearch &block) const {
    std::vector<Tensor> inputs(size);
    for (std::size_t m = 0; m < size; ++m) inputs[m] = tensors_[sets[place * size + m]];
    std::ranges::sort(inputs);
    return block.run(inputs, Goal::any);
}

std::vector<Kernels> Closure::search_here(const Sets &sets, std::size_t size) {
    const auto count = static_cast<std::int64_t>(sets.size() / size);
    std::vector<Kernels> found(static_cast<std::size_t>(count));
    const auto one = [&](std::int64_t i, BlockSearch &block) {
        if (control_.stopped()) return;
        const auto place = static_cast<std::size_t>(i);
        Kernels kernels = search(sets, size, place, block);
        if (!kernels.signatures.empty()) found[place] = std::move(kernels);
    };
    // Who is done takes the next few; dealt out, every worker has its own from the start.
    [[maybe_unused]] constexpr int kAtOnce = 16;
#pragma omp parallel if (count > kAtOnce) num_threads(team_.threads)
    {
        Worker &worker = workers_[static_cast<std::size_t>(this_worker())];
        Track track(control_, team_.timeline);
        BlockSearch block(space_, limits_.block, control_);
        track.to(Activity::busy);
        if (team_.sharing == Sharing::dealt) {
#pragma omp for schedule(static, 1) nowait
            for (std::int64_t i = 0; i < count; ++i) one(i, block);
        } else {
#pragma omp for schedule(dynamic, kAtOnce) nowait
            for (std::int64_t i = 0; i < count; ++i) one(i, block);
        }
        track.to(Activity::waiting);
#pragma omp barrier
        worker.counters += block.counters;
        ++worker.items;
        worker.times += track.take();
    }
    return found;
}

// Several processes ------------------------------------------------------------------------------------------------

// Chunks are numbered on and on, so that a process may be offered one of sets that it does not know yet.
std::vector<Kernels> Closure::search_together(const Sets &sets, std::size_t size) {
    constexpr std::size_t kChunks = 256, kMostSets = 256;
    const std::size_t count = sets.size() / size, each = std::clamp<std::size_t>(count / kChunks, 1, kMostSets);
    {
        const std::lock_guard lock(mutex_);
        end_ = first_ + (count + each - 1) / each;
        missing_ = end_ - first_ - static_cast<std::size_t>(std::distance(known_.begin(), known_.lower_bound(end_)));
    }
#pragma omp parallel num_threads(team_.threads)
    {
        Worker &worker = workers_[static_cast<std::size_t>(this_worker())];
        Track track(control_, team_.timeline);
        BlockSearch block(space_, limits_.block, control_);
        while (const auto chunk = take()) {
            track.to(Activity::busy);
            const std::size_t from = (*chunk - first_) * each;
            std::vector<Kernels> found;
            for (std::size_t place = from; place < std::min(from + each, count) && !control_.stopped(); ++place) {
                Kernels kernels = search(sets, size, place, block);
                if (!kernels.signatures.empty()) found.push_back(std::move(kernels));
            }
            know(*chunk, std::move(found), !control_.stopped());
            ++worker.items;
            track.to(Activity::waiting);
        }
        worker.counters += block.counters;
        worker.times += track.take();
    }
    const std::lock_guard lock(mutex_);
    if (missing_) control_.ask(Stop::interrupted);
    std::vector<Kernels> all;
    for (; !known_.empty() && known_.begin()->first < end_; known_.erase(known_.begin()))
        std::ranges::move(known_.begin()->second, std::back_inserter(all));
    first_ = end_;
    return all;
}

std::optional<std::size_t> Closure::take() {
    std::unique_lock lock(mutex_);
    ++idle_;
    while (missing_ && !control_.poll() && !ended_ && (offered_.empty() || offered_.front() >= end_))
        changed_.wait_for(lock, std::chrono::milliseconds(20));
    --idle_;
    if (control_.stopped() || offered_.empty() || offered_.front() >= end_) return std::nullopt;
    const std::size_t chunk = offered_.front();
    offered_.pop_front();
    return chunk;
}

void Closure::know(std::size_t chunk, std::vector<Kernels> found, bool tell) {
    const std::lock_guard lock(mutex_);
    if (tell) {
        fresh_.put<std::uint64_t>(chunk);
        fresh_.put<std::uint64_t>(found.size());
        for (const Kernels &kernels : found) write(fresh_, kernels);
    }
    if (known_.emplace(chunk, std::move(found)).second && chunk < end_) --missing_;
    changed_.notify_all();
}

void Closure::offer(std::size_t chunk) {
    const std::lock_guard lock(mutex_);
    offered_.push_back(chunk);
    changed_.notify_one();
}

std::size_t Closure::waiting() {
    const std::lock_guard lock(mutex_);
    return offered_.size();
}

void Closure::end() {
    const std::lock_guard lock(mutex_);
    ended_ = true;
    changed_.notify_all();
}

std::string Closure::fresh() {
    const std::lock_guard lock(mutex_);
    return fresh_.take();
}

void Closure::learn(std::string_view made) {
    Reader reader(made);
    while (reader.more()) {
        const auto chunk = reader.get<std::uint64_t>();
        std::vector<Kernels> found;
        for (auto left = reader.get<std::uint64_t>(); left > 0; --left) found.push_back(read_kernels(reader));
        know(chunk, std::move(found), false);
    }
}

} // namespace tilesmith
