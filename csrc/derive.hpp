// The cheapest way to a program's outputs over the kernels of a closure, each kernel paid once.
#pragma once

#include <span>
#include <vector>

#include "closure.hpp"
#include "schedule.hpp"

namespace tilesmith {

// One kernel with the schedule that it is cheapest in.
struct Scheduled {
    const Kernels *kernels = nullptr;
    const Signature *signature = nullptr;
    const Implementation *implementation = nullptr;
    Cost cost;
};

struct Derivation {
    std::vector<Scheduled> kernels; // in an order in which they can run
    double seconds = Cost::kNever;
};

struct DeriveCounters {
    std::uint64_t edges = 0;           // kernels of the closure, apart from implementations
    std::uint64_t relevant = 0;        // those that may be part of a derivation as cheap as a known one
    std::uint64_t implementations = 0; // scheduled
    std::uint64_t unfit = 0;           // of those
    std::uint64_t schedules = 0;
    std::uint64_t rounds = 0;
};

// Tensors are paid once however often they are used. Which to make first, and so to share, is searched by a beam: a state
// is what has been made, a step makes one tensor more by its cheapest tree or two by one kernel, and a state is worth
// what it cost and what the goals still cost. Kernels are scheduled only where they may matter: a bound from below (their bytes and their
// launch) rules out the others, and so does a kernel that makes as much of less for less.
class Deriver {
  public:
    Deriver(const Space &space, const Closure &closure, const Sizes &sizes, const Device &device, Control &control,
            int threads);

    // The cheapest that the beam came across, the cheapest first; none where no schedule fits. What has no split is only
    // among those of the first call, since the number of parts does not matter to it.
    std::vector<Derivation> cheapest(std::int64_t split, std::size_t keep);

    const DeriveCounters &counted() const { return counted_; }

  private:
    using Id = std::uint32_t;
    struct Edge {
        const Kernels *kernels = nullptr;
        const Signature *signature = nullptr;
        std::vector<Id> inputs; // each once
        std::vector<Id> outputs;
        double seconds = 0; // from below until it is scheduled
        bool exact = false;
        bool splits = false; // whether the number of split parts matters to it
        Scheduled best;
    };
    struct Tree {
        std::vector<double> seconds; // of each tensor
        std::vector<int> edge;       // by which it is made; -1 for what is there
    };

    // What has been made, by which edges.
    struct State {
        std::vector<bool> there;
        std::vector<int> edges;
        double seconds = 0;
    };

    Id number(Tensor t);
    Tree tree(const std::vector<bool> &there) const;
    void schedule(std::span<const int> edges);
    std::vector<int> collect(const Tree &tree, Id goal, std::vector<bool> &there) const;
    void pay(const std::vector<int> &edges, State &state) const;
    bool make(Id goal, State &state) const;
    std::vector<int> twins(const Tree &tree, const State &state) const;
    bool finish(State &state) const;
    std::vector<State> share(std::size_t keep, bool unsplit) const;
    void use(std::span<const std::size_t> edges);
    Edge &edge(int e) { return edges_[static_cast<std::size_t>(e)]; }
    const Edge &edge(int e) const { return edges_[static_cast<std::size_t>(e)]; }
    Derivation derivation(const State &state) const;
    void drop_dominated();
    double known_solution();
    std::vector<int> relevant(double limit) const;

    const Space &space_;
    const Sizes &sizes_;
    Device device_;
    Control &control_;
    int threads_;
    std::int64_t split_ = 1;
    std::vector<std::pair<Tensor, Id>> numbers_; // sorted
    Id count_ = 0;
    std::vector<bool> given_;
    std::vector<Id> goals_;
    std::vector<Edge> edges_;
    std::vector<int> pool_;                        // the edges that are derived with
    std::vector<std::vector<std::uint32_t>> uses_; // of each tensor: those that read it, by their places in the pool
    bool begun_ = false;
    bool reached_ = true; // every output has a kernel that makes it
    DeriveCounters counted_;
};

} // namespace tilesmith
