// Which values a kernel can compute from which of its inputs, and how far each is from what it may store. Tiles, loops
// and what values have in common are left out of it, so that nothing is lost.
#pragma once

#include <array>
#include <span>
#include <vector>

#include "space.hpp"

namespace tilesmith {

class Reach {
  public:
    static constexpr std::size_t kMostInputs = 6;
    static constexpr int kNever = 99;

    explicit Reach(const Space &space);

    // Looks at everything that can be made of some inputs. `ends` says what may be stored: a value of all inputs, or with
    // `pairs` two that have all of them between them, and one in common where `connected`. False where nothing can be.
    bool look(std::span<const Class> inputs, const std::vector<std::uint8_t> &ends, bool pairs, bool connected);

    // The fewest steps from a class, made of a set of inputs, to a store; kNever where there is no way.
    int steps(Class c, std::uint32_t loads) const { return steps_[(std::size_t{c} << inputs_) + loads]; }

  private:
    using Sets = std::uint64_t; // of sets of inputs: a bit for each

    void add(Class c, Sets sets);
    Sets joined(Sets a, Sets b) const;
    Sets without(Sets results, Sets others) const;
    bool any_end(const std::vector<std::uint8_t> &ends, bool pairs, bool connected);
    void back();
    void reach_back(Class c, Sets sets, std::uint8_t step);

    const Space &space_;
    std::size_t inputs_ = 0;
    std::vector<Sets> made_, fresh_, ended_; // of each class
    std::vector<Class> touched_, work_;
    std::vector<std::uint8_t> steps_;
    struct Level {
        Class c;
        Sets sets;
    };
    std::vector<Level> level_, next_;
};

} // namespace tilesmith
