// Block searches, each made once for a set of inputs: by whichever worker asks first, or of several processes by the one
// that the set belongs to.
#pragma once

#include <array>
#include <deque>
#include <span>
#include <vector>

#include "block.hpp"
#include "sync.hpp"
#include "track.hpp"

namespace tilesmith {

// A block search: its key in the memo, and the tensors, sorted.
struct Wanted {
    std::uint64_t key = 0;
    std::vector<Tensor> inputs;
    bool lent = false; // to this process by the one that it belongs to
};

// Shared by all workers. What is in it stays where it is.
class Memo {
  public:
    class Entry {
      public:
        Entry(std::uint64_t key, bool elsewhere) : key_(key), elsewhere_(elsewhere) {}

        std::uint64_t key() const { return key_; }
        bool ready() const { return ready_.load(std::memory_order_acquire); }
        bool learned() const { return learned_; }
        // Whether another process makes it.
        bool elsewhere() const { return elsewhere_; }
        void wait() const { ready_.wait(false, std::memory_order_acquire); }
        // Only once it is ready.
        const Kernels &kernels() const { return kernels_; }

      private:
        friend class Memo;
        std::uint64_t key_;
        Kernels kernels_;
        const bool elsewhere_;
        bool learned_ = false;
        Atomic<bool> ready_{false};
    };

    // A set of tensors by the sum of their mixed numbers, and whether targets alone are looked for.
    static std::uint64_t key(std::uint64_t hash, bool last) {
        return (hash << 1 | (last ? 1u : 0u)) & (FlatMap<Entry *>::kEmpty >> 1);
    }
    static std::uint64_t hash_of(Tensor t) { return mix(t); }
    static bool last(std::uint64_t key) { return key & 1; }

    // From now on sets belong to processes, in equal parts; this one is `rank`.
    void deal(int rank, int ranks);
    int maker(std::uint64_t key) const;
    bool theirs(std::uint64_t key) const { return maker(key) != rank_; }

    // Where `fresh`, the caller has to fill it, whatever happens: others wait for it. Unless it is made `elsewhere`.
    Entry &at(std::uint64_t key, bool &fresh, bool elsewhere = false);
    // `learned` from another process.
    void fill(Entry &entry, Kernels kernels, bool learned = false);
    // Of a key that somebody asked for; waits until it is ready. Raises invalid_argument where nobody did, or where another
    // process has yet to make it.
    const Entry &entry(std::uint64_t key);

    // A search that its process has to be asked for, and all of those since the last call.
    void want(Wanted wanted);
    std::vector<Wanted> wanted();

    // What was filled, in that order, from the given one on.
    std::vector<const Entry *> filled(std::size_t from);

  private:
    static constexpr std::size_t kShards = 64;
    struct alignas(64) Shard {
        Mutex mutex;
        FlatMap<Entry *> places;
        std::deque<Entry> entries;
    };
    Shard &shard(std::uint64_t key) { return shards_[mix(~key) % kShards]; }

    std::array<Shard, kShards> shards_;
    Mutex mutex_;
    std::vector<const Entry *> filled_;
    std::vector<Wanted> wanted_;
    int rank_ = 0;
    Atomic<int> ranks_{1};
};

// One worker's way to the memo. There are few tensors that can stand between kernels, so that a search of three kernels
// repeats the same block search eight times, and of four kernels two hundred times: what the worker has met it keeps at
// hand, and asks the others only for the rest.
class Catalogue {
  public:
    Catalogue(const Space &space, const BlockLimits &limits, Control &control, Memo &memo, Track &track)
        : search_(space, limits, control), memo_(memo), track_(track) {}

    // What is made of some tensors, by the sum of their mixed numbers; `inputs` gives them sorted, where it has to, or none
    // if nothing is. None where another process makes it and has not yet: it has been asked for then, and is what was `missed`.
    template <typename Inputs> const Kernels *kernels(std::uint64_t hash, bool last, const Inputs &inputs) {
        const std::uint64_t key = Memo::key(hash, last);
        const Kernels *const *known = known_.find(key);
        return known && *known ? *known : ask(key, inputs());
    }
    const Memo::Entry &missed() const { return *missed_; }
    // Unless it was made before. Whether somebody here may have been told that another process makes it.
    bool make(const Wanted &wanted);

    const Counters &counters() const { return search_.counters; }

  private:
    void fill(Memo::Entry &entry, std::span<const Tensor> inputs);
    const Kernels *ask(std::uint64_t key, std::span<const Tensor> inputs);

    BlockSearch search_;
    Memo &memo_;
    Track &track_;
    FlatMap<const Kernels *> known_;
    const Memo::Entry *missed_ = nullptr;
};

} // namespace tilesmith
