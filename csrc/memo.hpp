// Block searches, each made once for a set of inputs, by whichever worker asks first.
#pragma once

#include <array>
#include <atomic>
#include <deque>
#include <mutex>
#include <span>
#include <vector>

#include "block.hpp"
#include "track.hpp"

namespace tilesmith {

// Shared by all workers. What is in it stays where it is.
class Memo {
  public:
    class Entry {
      public:
        explicit Entry(std::uint64_t key) : key_(key) {}

        std::uint64_t key() const { return key_; }
        bool ready() const { return ready_.load(std::memory_order_acquire); }
        bool learned() const { return learned_; }
        void wait() const { ready_.wait(false, std::memory_order_acquire); }
        // Only once it is ready.
        const Kernels &kernels() const { return kernels_; }

      private:
        friend class Memo;
        std::uint64_t key_;
        Kernels kernels_;
        bool learned_ = false;
        std::atomic<bool> ready_{false};
    };

    // A set of tensors by the sum of their mixed numbers, and whether targets alone are looked for.
    static std::uint64_t key(std::uint64_t hash, bool last) {
        return (hash << 1 | (last ? 1u : 0u)) & (FlatMap<Entry *>::kEmpty >> 1);
    }
    static std::uint64_t hash_of(Tensor t) { return mix(t); }

    // Where `fresh`, the caller has to fill it, whatever happens: others wait for it.
    Entry &at(std::uint64_t key, bool &fresh);
    // `learned` from another process.
    void fill(Entry &entry, Kernels kernels, bool learned = false);
    // Of a key that somebody asked for; waits until it is ready. Raises invalid_argument where nobody did.
    const Entry &entry(std::uint64_t key);

    // What was filled, in that order, from the given one on.
    std::vector<const Entry *> filled(std::size_t from);
    // How many distinct tensors kernels read or made.
    std::size_t tensors();

  private:
    static constexpr std::size_t kShards = 64;
    struct alignas(64) Shard {
        std::mutex mutex;
        FlatMap<Entry *> places;
        std::deque<Entry> entries;
    };
    Shard &shard(std::uint64_t key) { return shards_[mix(~key) % kShards]; }

    std::array<Shard, kShards> shards_;
    std::mutex mutex_;
    std::vector<const Entry *> filled_;
};

// One worker's way to the memo. There are few tensors that can stand between kernels, so that a search of three kernels
// repeats the same block search eight times, and of four kernels two hundred times: what the worker has met it keeps at
// hand, and asks the others only for the rest.
class Catalogue {
  public:
    Catalogue(const Space &space, const BlockLimits &limits, Control &control, Memo &memo, Track &track)
        : search_(space, limits, control), memo_(memo), track_(track) {}

    // `inputs` sorted, and `hash` the sum of their mixed numbers.
    const Kernels &kernels(std::span<const Tensor> inputs, std::uint64_t hash, bool last);

    const Counters &counters() const { return search_.counters; }

  private:
    BlockSearch search_;
    Memo &memo_;
    Track &track_;
    FlatMap<const Kernels *> known_;
};

} // namespace tilesmith
