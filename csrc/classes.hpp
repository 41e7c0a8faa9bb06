// A few classes as a number, to look something up by.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "table.hpp"

namespace tilesmith {

// Up to four classes, sorted, 16 bits each, from the highest on.
class Few {
  public:
    using Key = std::uint64_t;
    static constexpr std::size_t kMost = 4;
    static constexpr Key kNone = ~Key{0};

    // With another one; of more than four these stay.
    static constexpr Key with(Key classes, Class more) {
        if (static_cast<Class>(classes) != kNoClass) return classes;
        int low = 48;
        while (static_cast<Class>(classes >> low) <= more) low -= 16;
        // What is larger than the new one moves one place down.
        const Key above = low == 48 ? 0 : ~Key{0} << (low + 16);
        return (classes & above) | Key{more} << low | (classes & ~above) >> 16;
    }

    explicit constexpr Few(Key key) {
        for (; static_cast<Class>(key >> 48) != kNoClass && count_ < kMost; key = key << 16 | kNoClass)
            all_[count_++] = static_cast<Class>(key >> 48);
    }

    constexpr std::size_t size() const { return count_; }
    constexpr Class operator[](std::size_t i) const { return all_[i]; }
    // All of them, a bit for each.
    constexpr unsigned all() const { return (1u << count_) - 1; }
    constexpr Key some(unsigned members) const {
        Key key = kNone;
        int low = 48;
        for (; members; members &= members - 1, low -= 16) {
            const Key c = all_[static_cast<std::size_t>(__builtin_ctz(members))];
            key ^= (c ^ kNoClass) << low;
        }
        return key;
    }

  private:
    std::array<Class, kMost> all_{};
    std::size_t count_ = 0;
};

} // namespace tilesmith
