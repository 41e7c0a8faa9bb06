#include "pool.hpp"

#include <algorithm>

namespace tilesmith {

Pool::Pool(Control &control, int workers, bool fed) : control_(control), workers_(workers), fed_(fed) {}

void Pool::put(Item item) {
    {
        const std::lock_guard lock(mutex_);
        push(std::move(item));
        count();
    }
    more_.notify_one();
}

void Pool::push(Item item) {
    if (item.is_errand()) return errands_.push_back(std::move(item));
    bytes_ += item.bytes();
    ++size_;
    released_ += item.waits_for != nullptr;
    items_[static_cast<std::size_t>(item.level())].push_back(std::move(item));
}

void Pool::count() {
    const auto size = static_cast<int>(size_), whole = static_cast<int>(size_ - released_);
    wanting_.store(std::max(waiting_ - size, abroad_ - whole), std::memory_order_relaxed);
    errand_count_.store(errands_.size(), std::memory_order_relaxed);
    parked_count_.store(parked_.size(), std::memory_order_relaxed);
}

void Pool::park(Item item, const Memo::Entry &waits_for) {
    {
        const std::lock_guard lock(mutex_);
        // What became ready before this is not told again.
        item.waits_for = &waits_for;
        if (waits_for.ready()) push(std::move(item));
        else parked_.push_back(std::move(item));
        count();
    }
    more_.notify_one();
}

void Pool::release() {
    {
        const std::lock_guard lock(mutex_);
        const auto waits = [](const Item &item) { return !item.waits_for->ready(); };
        const auto ready = std::partition(parked_.begin(), parked_.end(), waits);
        std::for_each(ready, parked_.end(), [&](Item &item) { push(std::move(item)); });
        parked_.erase(ready, parked_.end());
        count();
    }
    more_.notify_all();
}

std::optional<Item> Pool::pop_errand() {
    if (errands_.empty()) return std::nullopt;
    std::optional<Item> item = std::move(errands_.front());
    errands_.pop_front();
    return item;
}

std::optional<Item> Pool::pop() {
    auto item = pop_errand();
    return item ? std::move(item) : pop_work();
}

std::optional<Item> Pool::pop_work() {
    for (auto &level : items_) {
        if (level.empty()) continue;
        std::optional<Item> item = std::move(level.front());
        level.pop_front();
        bytes_ -= item->bytes();
        --size_;
        released_ -= item->waits_for != nullptr;
        return item;
    }
    return std::nullopt;
}

std::optional<Item> Pool::take() {
    std::unique_lock lock(mutex_);
    ++waiting_;
    while (!size_ && errands_.empty() && !ended_) {
        if (waiting_ == workers_ && !fed_) {
            ended_ = true;
            more_.notify_all();
            break;
        }
        count();
        // Nobody else may look at the clock.
        more_.wait_for(lock, std::chrono::milliseconds(20));
        if (control_.poll()) ended_ = true;
    }
    std::optional<Item> item;
    if (!control_.stopped() && (size_ || !errands_.empty())) {
        item = pop();
        --waiting_;
    }
    count();
    return item;
}

std::optional<Item> Pool::spare() {
    const std::lock_guard lock(mutex_);
    std::optional<Item> item = pop();
    count();
    return item;
}

std::optional<Item> Pool::errand() {
    const std::lock_guard lock(mutex_);
    std::optional<Item> item = pop_errand();
    count();
    return item;
}

std::vector<Item> Pool::lend() {
    const std::lock_guard lock(mutex_);
    std::vector<Item> items;
    const std::size_t here = size_ + errands_.size(), taken = static_cast<std::size_t>(waiting_);
    const auto errand = std::ranges::find_if(errands_, [](const Item &each) { return !each.errand.lent; });
    if (here > taken && errand != errands_.end()) {
        items.push_back(std::move(*errand));
        errands_.erase(errand);
    } else if (here > taken) {
        const std::size_t half = std::min({size_, kMostLent, (here - taken + 1) / 2});
        while (items.size() < half) items.push_back(*pop_work());
    }
    // A worker's own open work may be larger than all of that.
    abroad_ = items.empty() || items.front().waits_for ? 1 : 0;
    count();
    return items;
}

void Pool::seat(int workers) {
    const std::lock_guard lock(mutex_);
    workers_ = workers;
}

void Pool::close() {
    const std::lock_guard lock(mutex_);
    fed_ = false;
    more_.notify_all();
}

std::size_t Pool::size() {
    const std::lock_guard lock(mutex_);
    return size_;
}

bool Pool::idle() {
    const std::lock_guard lock(mutex_);
    return !size_ && errands_.empty() && parked_.empty() && waiting_ == workers_;
}

int Pool::lowest() {
    const std::lock_guard lock(mutex_);
    for (std::size_t level = 0; level < items_.size(); ++level)
        if (!items_[level].empty()) return static_cast<int>(level);
    return kMostKernels;
}

} // namespace tilesmith
