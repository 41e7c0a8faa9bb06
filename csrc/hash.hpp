// Small hashing tools: a mixer, a flat map that is never shrunk, and rows of numbers that are kept once.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

namespace tilesmith {

// The finalizer of splitmix64 (Steele, Lea, Flood 2014).
constexpr std::uint64_t mix(std::uint64_t x) {
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

// Keys of 64 bits to values, open addressing; the key ~0 is not allowed.
template <typename Value> class FlatMap {
  public:
    static constexpr std::uint64_t kEmpty = ~std::uint64_t{0};

    explicit FlatMap(std::size_t expected = 16) { resize(expected); }

    const Value *find(std::uint64_t key) const {
        for (std::size_t i = mix(key) & mask_;; i = (i + 1) & mask_) {
            if (slots_[i].key == key) return &slots_[i].value;
            if (slots_[i].key == kEmpty) return nullptr;
        }
    }

    // The value of a key, made by default where there is none; `fresh` tells.
    Value &at(std::uint64_t key, bool &fresh) {
        if ((size_ + 1) * 2 > slots_.size()) grow();
        for (std::size_t i = mix(key) & mask_;; i = (i + 1) & mask_) {
            if (slots_[i].key == key) {
                fresh = false;
                return slots_[i].value;
            }
            if (slots_[i].key == kEmpty) {
                slots_[i].key = key;
                ++size_;
                fresh = true;
                return slots_[i].value;
            }
        }
    }

    std::size_t size() const { return size_; }
    std::size_t bytes() const { return slots_.size() * sizeof(Slot); }

  private:
    struct Slot {
        std::uint64_t key = kEmpty;
        Value value{};
    };

    void resize(std::size_t expected) {
        std::size_t slots = 16;
        while (slots < expected * 2) slots *= 2;
        slots_.assign(slots, Slot{});
        mask_ = slots - 1;
        size_ = 0;
    }

    void grow() {
        std::vector<Slot> old;
        old.swap(slots_);
        resize(old.size());
        for (Slot &slot : old) {
            if (slot.key == kEmpty) continue;
            bool fresh = false;
            at(slot.key, fresh) = std::move(slot.value);
        }
    }

    std::vector<Slot> slots_;
    std::size_t mask_ = 0, size_ = 0;
};

// Rows of numbers, each kept once and known by its place. A row never moves, so spans of it stay good.
class Rows {
  public:
    using Id = std::uint32_t;

    Rows() : slots_(64) {}

    Id intern(std::span<const std::uint32_t> row) {
        if ((starts_.size() + 1) * 2 > slots_.size()) grow();
        const std::uint32_t hash = hash_of(row);
        for (std::size_t i = hash & (slots_.size() - 1);; i = (i + 1) & (slots_.size() - 1)) {
            Slot &slot = slots_[i];
            if (slot.id == kNone) {
                slot = {static_cast<Id>(starts_.size()), hash};
                starts_.push_back({store(row), static_cast<std::uint32_t>(row.size())});
                return slot.id;
            }
            if (slot.hash == hash && std::ranges::equal((*this)[slot.id], row)) return slot.id;
        }
    }

    // The place of a row that is kept, or none.
    std::optional<Id> find(std::span<const std::uint32_t> row) const {
        const std::uint32_t hash = hash_of(row);
        for (std::size_t i = hash & (slots_.size() - 1);; i = (i + 1) & (slots_.size() - 1)) {
            const Slot &slot = slots_[i];
            if (slot.id == kNone) return std::nullopt;
            if (slot.hash == hash && std::ranges::equal((*this)[slot.id], row)) return slot.id;
        }
    }

    std::span<const std::uint32_t> operator[](Id id) const { return {starts_[id].data, starts_[id].size}; }
    std::size_t size() const { return starts_.size(); }

  private:
    static constexpr Id kNone = ~Id{0};
    static constexpr std::size_t kChunk = 1 << 14;
    struct Row {
        const std::uint32_t *data;
        std::uint32_t size;
    };

    struct Slot {
        Id id = kNone;
        std::uint32_t hash = 0;
    };

    static std::uint32_t hash_of(std::span<const std::uint32_t> row) {
        std::uint64_t hash = row.size();
        for (const std::uint32_t x : row) hash = std::rotl((hash ^ x) * 0x9e3779b97f4a7c15u, 29);
        return static_cast<std::uint32_t>(mix(hash));
    }

    const std::uint32_t *store(std::span<const std::uint32_t> row) {
        if (chunks_.empty() || chunks_.back().capacity() - chunks_.back().size() < row.size()) {
            chunks_.emplace_back();
            chunks_.back().reserve(row.size() > kChunk ? row.size() : kChunk);
        }
        std::vector<std::uint32_t> &chunk = chunks_.back();
        chunk.insert(chunk.end(), row.begin(), row.end());
        return chunk.data() + (chunk.size() - row.size());
    }

    void grow() {
        std::vector<Slot> old(slots_.size() * 2);
        old.swap(slots_);
        for (const Slot &slot : old) {
            if (slot.id == kNone) continue;
            std::size_t i = slot.hash & (slots_.size() - 1);
            while (slots_[i].id != kNone) i = (i + 1) & (slots_.size() - 1);
            slots_[i] = slot;
        }
    }

    std::vector<std::vector<std::uint32_t>> chunks_;
    std::vector<Row> starts_;
    std::vector<Slot> slots_;
};

} // namespace tilesmith
