// Which steps a walk allows between kinds of values. It depends on the walk alone, and few walks serve all block searches.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "reach.hpp"
#include "space.hpp"

namespace tilesmith {

// How a kernel walks: which parts of a base its loop runs over, and which base is split over the grid beside.
struct Walk {
    Base loop = 0;
    std::uint8_t loop_parts = 0;
    Base split = 0;

    bool operator==(const Walk &) const = default;
};

constexpr bool gathers(StepKind kind) { return kind == StepKind::accumulate || kind == StepKind::accumulate_sum; }

class Ground {
  public:
    // Of values: of an iteration, the same in all of them, after the loop.
    enum Phase : std::uint8_t { kVarying, kInvariant, kAfter };
    static constexpr std::uint8_t kPhases = 3;

    // A value's class and phase.
    static constexpr Reach::Node node(Class c, std::uint8_t phase) { return static_cast<Reach::Node>(kPhases * c + phase); }
    static constexpr Class class_in(Reach::Node node) { return static_cast<Class>(node / kPhases); }
    static constexpr std::uint8_t phase_in(Reach::Node node) { return static_cast<std::uint8_t>(node % kPhases); }
    // Not what is of an iteration with what is after the loop.
    static constexpr bool join(std::uint8_t a, std::uint8_t b, std::uint8_t &joined) {
        if ((a ^ b) == (kVarying ^ kAfter)) return false;
        joined = a == kInvariant ? b : a;
        return true;
    }

    // A step from a kind of value, alone or `with` another; by which of the class's partners, counted in the space.
    struct Edge {
        Reach::Node with, to;
        std::uint32_t partner;
    };
    // Partners of a class with which no step is allowed, by cause.
    struct Refused {
        std::uint32_t shape = 0, phase = 0, table = 0;
    };

    Ground(const Space &space, const Walk &walk);

    const Walk &walk() const { return walk_; }
    // Parts that the loop runs over.
    Free looped() const { return looped_; }

    // A class has to be looked at before its kinds are.
    const Refused &look(Class c) {
        if (!known_[c]) list(c);
        return refused_[c];
    }
    std::span<const Edge> from(Reach::Node node) const { return {edges_.data() + first_[node], end_[node] - first_[node]}; }
    // The class of what the step with a partner makes in this walk's tiles, or kNoClass.
    Class result(std::size_t partner) const { return results_[partner]; }

  private:
    void list(Class c);
    Class made_by(const Partner &partner, Class c, Refused &refused) const;
    bool same_extents(Free a, Free b) const;
    bool in_tile(Free free, Bases over) const;
    Class sum_in_tile(Class c, Free free, Bases over) const;

    const Space &space_;
    Walk walk_;
    Free looped_, outside_; // parts that are not in one block's tile
    bool oriented_;
    std::vector<std::uint8_t> known_;         // of each class
    std::vector<Refused> refused_;            // of each class
    std::vector<Class> results_;              // of each partner
    std::vector<std::uint32_t> first_, end_;  // of each kind of value, in all edges
    std::vector<Edge> edges_;
};

} // namespace tilesmith
