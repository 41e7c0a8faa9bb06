// Open work, and who waits for some.
#pragma once

#include <array>
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <mutex>
#include <optional>
#include <vector>

#include "book.hpp"
#include "memo.hpp"
#include "sync.hpp"

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

// Programs to be continued, all of as many kernels; or a block search that another process asked for.
struct Item {
    static constexpr State::Set kAll = ~State::Set{0};

    std::vector<Prefix> nodes;
    // Where there is but one: only with sets of inputs from the one on and before the other as its next kernel's, or with that
    // one and those after it as its last kernel's.
    State::Set from = 0, to = kAll;
    // Where that is but one set: only those kernels, by their signatures; where not from the first, none that ends.
    std::uint32_t first = 0, last = ~std::uint32_t{0};
    Segment *segment = nullptr;
    Wanted errand;
    const Memo::Entry *waits_for = nullptr; // while it is parked

    bool is_errand() const { return !errand.inputs.empty(); }
    int level() const { return is_errand() ? 0 : nodes.front().depth; }
    std::size_t bytes() const { return sizeof(Item) + nodes.size() * sizeof(Prefix); }
};

// Whoever takes gets an errand, or what has the fewest kernels, and of that what was put first.
class Pool {
  public:
    // Ends when all of so many workers wait, unless it is `fed` from elsewhere: then when it is closed too.
    Pool(Control &control, int workers, bool fed = false);

    void put(Item item);
    // To be put by the first `release` after what it waits for is there.
    void park(Item item, const Memo::Entry &waits_for);
    void release();
    // Waits for an item; none at the end, and where the control stopped.
    std::optional<Item> take();
    // What is there, for another pool; none where nothing is.
    std::optional<Item> spare();
    // For who is busy with an item.
    std::optional<Item> errand();
    // The same for another process: an errand, or half of what no worker waits for, the shallowest first, but not too much for
    // a message. Where that is nothing, or but small, the workers are asked for half of their shallowest open work.
    std::vector<Item> lend();
    // So many workers take.
    void seat(int workers);
    // What is fed comes to an end.
    void close();

    static constexpr std::size_t kMostLent = 64;

    // How many more items would find a taker at once.
    int wanting() const { return wanting_.load(std::memory_order_relaxed); }
    std::size_t bytes() const { return bytes_.load(std::memory_order_relaxed); }
    std::size_t parked() const { return parked_count_.load(std::memory_order_relaxed); }
    bool errands() const { return errand_count_.load(std::memory_order_relaxed) > 0; }
    // Of items that can be taken.
    std::size_t size();
    // Whether all workers wait for an item, and nothing is parked.
    bool idle();
    int lowest();

  private:
    void push(Item item);
    std::optional<Item> pop();
    std::optional<Item> pop_errand();
    std::optional<Item> pop_work();
    void count();

    Control &control_;
    int workers_, waiting_ = 0, abroad_ = 0;
    bool fed_, ended_ = false;
    std::mutex mutex_;
    std::condition_variable more_;
    std::array<std::deque<Item>, kMostKernels + 1> items_; // by level
    std::deque<Item> errands_;
    std::vector<Item> parked_;
    std::size_t size_ = 0;     // of items_
    std::size_t released_ = 0; // of them, what was parked: most of it is but a program's last kernel
    Atomic<std::size_t> errand_count_{0}, parked_count_{0};
    Atomic<std::size_t> bytes_{0};
    Atomic<int> wanting_{0};
};

} // namespace tilesmith
