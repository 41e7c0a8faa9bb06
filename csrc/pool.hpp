// Open work, and who waits for some.
#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <mutex>
#include <optional>
#include <vector>

#include "book.hpp"

namespace tilesmith {

// What is known of a program in the making; its tensors are those of its kernels.
struct State {
    using Set = std::uint64_t; // of tensors

    int count = 0;  // tensors that there are: the inputs, then what kernels made
    Set needed = 0; // made and not yet used, by owners
    Set last_inputs = 0;
    std::uint32_t last_signature = 0;
    int targets_left = 0;
};

struct Prefix {
    State state;
    int depth = 0; // kernels
    std::array<Choice, kMostKernels> path;
};

// Programs to be continued, all of as many kernels.
struct Item {
    static constexpr std::size_t kAll = ~std::size_t{0};

    std::vector<Prefix> nodes;
    // Where there is but one: only with those sets of inputs as its next kernel's.
    std::size_t from = 0, to = kAll;
    // Where that is but one set: only those kernels, by their signatures; where not from the first, none that ends.
    std::uint32_t first = 0, last = ~std::uint32_t{0};
    Segment *segment = nullptr;

    int level() const { return nodes.front().depth; }
    std::size_t bytes() const { return sizeof(Item) + nodes.size() * sizeof(Prefix); }
};

// Whoever takes gets what has the fewest kernels, and of that what was put first.
class Pool {
  public:
    // Ends when all of so many workers wait, unless it is `fed` from elsewhere: then when it is closed too.
    Pool(Control &control, int workers, bool fed = false);

    void put(Item item);
    // Waits for an item; none at the end, and where the control stopped.
    std::optional<Item> take();
    // What is there, for another pool; none where nothing is.
    std::optional<Item> spare();
    // The same for another process: only what no worker waits for. Otherwise the workers are asked for more.
    std::optional<Item> lend();
    // So many workers take.
    void seat(int workers);
    // What is fed comes to an end.
    void close();

    // How many more items would find a taker at once.
    int wanting() const { return wanting_.load(std::memory_order_relaxed); }
    std::size_t bytes() const { return bytes_.load(std::memory_order_relaxed); }
    std::size_t size();
    // Whether all workers wait for an item.
    bool idle();
    int lowest();

  private:
    std::optional<Item> pop();
    void count() { wanting_.store(waiting_ + abroad_ - static_cast<int>(size_), std::memory_order_relaxed); }

    Control &control_;
    int workers_, waiting_ = 0, abroad_ = 0;
    bool fed_, ended_ = false;
    std::mutex mutex_;
    std::condition_variable more_;
    std::array<std::deque<Item>, kMostKernels + 1> items_; // by level
    std::size_t size_ = 0;
    std::atomic<std::size_t> bytes_{0};
    std::atomic<int> wanting_{0};
};

} // namespace tilesmith
