#include "pool.hpp"

namespace tilesmith {

Pool::Pool(Control &control, int workers, bool fed) : control_(control), workers_(workers), fed_(fed) {}

void Pool::put(Item item) {
    {
        const std::lock_guard lock(mutex_);
        bytes_ += item.bytes();
        ++size_;
        items_[static_cast<std::size_t>(item.level())].push_back(std::move(item));
        count();
    }
    more_.notify_one();
}

std::optional<Item> Pool::pop() {
    for (auto &level : items_) {
        if (level.empty()) continue;
        std::optional<Item> item = std::move(level.front());
        level.pop_front();
        bytes_ -= item->bytes();
        --size_;
        return item;
    }
    return std::nullopt;
}

std::optional<Item> Pool::take() {
    std::unique_lock lock(mutex_);
    ++waiting_;
    while (!size_ && !ended_) {
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
    if (!control_.stopped() && size_) {
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

std::optional<Item> Pool::lend() {
    const std::lock_guard lock(mutex_);
    std::optional<Item> item;
    if (static_cast<int>(size_) > waiting_) item = pop();
    abroad_ = item ? 0 : 1;
    count();
    return item;
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
    return !size_ && waiting_ == workers_;
}

int Pool::lowest() {
    const std::lock_guard lock(mutex_);
    for (std::size_t level = 0; level < items_.size(); ++level)
        if (!items_[level].empty()) return static_cast<int>(level);
    return kMostKernels;
}

} // namespace tilesmith
