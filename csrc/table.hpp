// The frozen table of a target: every value that can occur on the way to it is a class, and (operator, class, class)
// leads to the class of the result. What is not in the table can never become part of the target.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "program.hpp"
#include "terms.hpp"

namespace tilesmith {

using Class = std::uint16_t;
inline constexpr Class kNoClass = 0xffff;

// Which parts of which bases a value varies over: kParts bits for each base.
using Free = std::uint64_t;
constexpr int free_shift(Base base) { return kParts * (base - 1); }
constexpr unsigned parts_of(Free free, Base base) { return static_cast<unsigned>(free >> free_shift(base)) & 7u; }
constexpr Free free_parts(Base base, unsigned parts) { return static_cast<Free>(parts) << free_shift(base); }
inline constexpr Free kEachInBlock = 0111111111111111111111; // bit kInBlock of every base

enum class Rule : std::uint8_t { add, sub, mul, div, apply, sum };

struct Row {
    Rule rule{};
    Class a = 0;
    std::uint16_t b = 0; // a class; of apply the function; of sum 8 · base + parts
    Class result = 0;

    auto operator<=>(const Row &) const = default;
};

struct Table {
    std::vector<Row> rows; // sorted
    std::vector<Free> free; // of each class
    std::vector<std::string> shown; // of each class, where they were asked for
    // Of each input of the program its class, kNoClass where it is no part of the target; and by which renaming, -1 for
    // none, where it is one only under other names.
    std::vector<Class> inputs;
    std::vector<int> input_names;
    std::vector<Class> outputs;
    std::vector<Dims> output_dims;
    std::vector<Class> nodes; // of each node; kNoClass where its value is no sub-value
    // Renamings that exchange names of one extent, and of each of them and each class: the same tensor under the other
    // names. The class itself where it has none of them, kNoClass where it is no part of the target so.
    std::vector<std::vector<std::pair<Base, Base>>> renamings;
    std::vector<std::vector<Class>> views;
    int rank = 0; // the most dimensions that a tensor of the program has
    std::string incomplete; // why values are missing; empty where none are
    double seconds = 0;
    std::size_t terms = 0;

    std::size_t classes() const { return free.size(); }

    // One probe: the class of the result, or kNoClass.
    Class probe(Rule rule, Class a, std::uint16_t b) const {
        const std::uint64_t key = probe_key(rule, a, b);
        for (std::size_t i = place(key);; i = (i + 1) & mask_) {
            const std::uint64_t slot = slots_[i];
            // An empty slot says kNoClass by itself; whether it is one nobody can foresee, so that is no branch.
            if ((slot >> 16 == key) | (slot == kNoSlot)) return static_cast<Class>(slot);
        }
    }

    void index(); // after the rows are filled in

  private:
    static constexpr std::uint64_t kNoSlot = ~std::uint64_t{0};
    static_assert(static_cast<Class>(kNoSlot) == kNoClass);
    static constexpr std::uint64_t probe_key(Rule rule, Class a, std::uint16_t b) {
        // Commutative operands are stored with the smaller first.
        const bool swap = (rule == Rule::add || rule == Rule::mul) && a > b;
        const std::uint64_t first = swap ? b : a, second = swap ? a : b;
        return static_cast<std::uint64_t>(rule) << 32 | first << 16 | second;
    }

    // The upper bits of a product; one multiplication, since this is asked more often than anything else.
    std::size_t place(std::uint64_t key) const { return key * 0x9e3779b97f4a7c15u >> shift_; }

    std::vector<std::uint64_t> slots_;
    std::size_t mask_ = 0;
    int shift_ = 0;
};

struct TableLimits {
    std::size_t classes = 20'000;
    std::size_t terms = 20'000'000;
    bool show = false;
    std::function<bool()> stopped = [] { return false; };
};

// Raises std::invalid_argument for a program that is no program: what and where is in the message. A program whose
// values have no normal form within the limits gives a table that says so and has no rows.
Table build_table(const Program &program, const TableLimits &limits);

} // namespace tilesmith
