// The space of block graphs of a target, frozen for searching: which steps any two values allow, and how far from the
// target each value is. Read-only once made, and shared by all workers.
#pragma once

#include <span>
#include <utility>
#include <vector>

#include "program.hpp"
#include "table.hpp"

namespace tilesmith {

// How strict shapes are.
enum class Shapes : std::uint8_t {
    // Values are known by the names of their dimensions: views that permute or insert dimensions cost nothing.
    free,
    // As published: the order of dimensions counts, operands broadcast from the right, no transposes. Extents are not
    // compared, so that a dimension without its loop part passes for the whole one.
    oriented,
};

enum class StepKind : std::uint8_t { add, sub, mul, div, matmul, apply, sum, accumulate, accumulate_sum };

// One step of a block graph. `arg`: the function of apply; of matmul and sums the place of the set that they sum over.
struct Step {
    StepKind kind{};
    std::uint8_t arg = 0;
    std::uint8_t a = 0;
    std::uint8_t b = kNoOperand;

    static constexpr std::uint8_t kNoOperand = 0xff;
    auto operator<=>(const Step &) const = default;
};

// A step that a class allows, alone or with a partner of another class. `code` orders the steps of equal operands.
struct Partner {
    Class other = kNoClass;
    Class result = kNoClass; // of matmul: the product before it is summed; of sums: looked up by the parts that are left
    StepKind kind{};
    std::uint8_t arg = 0;
    std::uint8_t code = 0;
    bool reversed = false; // the newer operand stands second
};

struct SpaceOptions {
    Shapes shapes = Shapes::free;
    bool fused_accumulators = false; // one step accumulates and sums a dimension of the tile
};

// A list for each class, one after another.
template <typename Item> class Lists {
  public:
    std::span<const Item> operator[](Class c) const { return {items_.data() + starts_[c], starts_[c + 1u] - starts_[c]}; }

    // From pairs of a class and an item, in their order.
    void fill(std::size_t classes, std::span<const std::pair<Class, Item>> all) {
        starts_.assign(classes + 1, 0);
        for (const auto &[c, item] : all) ++starts_[c + 1u];
        for (std::size_t c = 0; c < classes; ++c) starts_[c + 1] += starts_[c];
        items_.resize(all.size());
        std::vector<std::uint32_t> next = starts_;
        for (const auto &[c, item] : all) items_[next[c]++] = item;
    }

  private:
    std::vector<std::uint32_t> starts_;
    std::vector<Item> items_;
};

class Space {
  public:
    static constexpr int kFar = 99;

    Space(const Program &program, const Table &table, const SpaceOptions &options);

    const Program &program() const { return program_; }
    const Table &table() const { return table_; }
    const SpaceOptions &options() const { return options_; }
    std::size_t classes() const { return live_.size(); }

    std::span<const Partner> partners(Class c) const {
        return {partners_.data() + starts_[c], starts_[c + 1u] - starts_[c]};
    }
    // The place of a class's first partner among those of all.
    std::size_t first_partner(Class c) const { return starts_[c]; }
    std::size_t all_partners() const { return partners_.size(); }
    // The class of a sum over some parts of a base, or kNoClass.
    Class sum(Class c, Base base, unsigned parts) const { return sums_[(c * stride_ + base) * 8u + parts]; }
    Free free(Class c) const { return table_.free[c]; }
    // Whether a tensor of this class can be made from the inputs and lead to the target.
    bool live(Class c) const { return live_[c] != 0; }
    bool target(Class c) const { return target_[c] != 0; }
    // Whether each base of a class has all its parts, or that of the grid alone.
    bool whole(Class c) const { return whole_[c] != 0; }
    // Whether a class is another times a constant.
    bool scaled(Class c) const { return scaled_[c] != 0; }
    // The fewest steps from a class to a target; the fewest that are no joins of two values.
    int distance(Class c) const { return distance_[c]; }
    int single_steps(Class c) const { return single_steps_[c]; }
    // What one step can make of a class, alone or with another, in some tile of some loop.
    struct Join {
        Class other, result;
    };
    std::span<const Class> singles(Class c) const { return singles_[c]; }
    std::span<const Join> joins(Class c) const { return joins_[c]; }
    // A class under other names, as in the table. Where shapes are oriented there are none.
    std::size_t renamings() const { return table_.views.size(); }
    Class view(std::size_t renaming, Class c) const { return table_.views[renaming][c]; }
    // Every class of the tensor that has a class, under all names: that class first.
    std::vector<Class> names_of(Class c) const;

    std::size_t live_classes() const;
    // Sets of bases that one step may sum over: each base alone, at its own place, then those of the program.
    const std::vector<Bases> &sets() const { return sets_; }

  private:
    // Steps that lead from one class to another, alone or with a partner.
    struct Lead {
        Class from, partner, to; // without a partner kNoClass
    };

    void find_distances();
    void list_leads(const std::vector<Lead> &leads);
    void list_partners();
    void list_products(std::vector<std::vector<Partner>> &lists) const;
    bool multiplies(Class a, Class b, Bases over) const;
    std::vector<Class> sums_over(Class c, Bases over) const;
    std::vector<Class> sums_of(Class c) const;

    const Program &program_;
    const Table &table_;
    SpaceOptions options_;
    std::size_t stride_;
    std::vector<Bases> sets_;
    std::vector<Class> sums_;
    std::vector<std::uint8_t> live_, target_, scaled_, whole_;
    std::vector<std::int16_t> distance_, single_steps_;
    std::vector<std::uint32_t> starts_;
    std::vector<Partner> partners_;
    Lists<Class> singles_;
    Lists<Join> joins_;
};

} // namespace tilesmith
