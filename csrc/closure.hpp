// Every tensor that any number of kernels can compute, and every kernel that leads from some of them to others.
#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "joins.hpp"
#include "served.hpp"
#include "team.hpp"
#include "wire.hpp"
#include "worker.hpp"

namespace tilesmith {

struct ClosureLimits {
    BlockLimits block;
    int inputs = 3;       // of one kernel
    bool filtered = true; // leave out sets of tensors that no kernel can join
};

struct ClosureCounters {
    std::uint64_t subsets = 0; // of tensors
    std::uint64_t rounds = 0;
};

// Which sets of tensors some chain of operators joins.
class Joined {
  public:
    Joined(const Space &space, int most);

    // Tensors are numbered in the order in which they are added. Sets are sorted, and asked for smaller ones first.
    void add(Class c);
    // Whether one kernel could use all of these for what it stores.
    bool joins(std::span<const std::uint32_t> set);

  private:
    using Parts = std::array<const Joins::Made *, 1 << Joins::kMost>;

    bool reach(std::span<const std::uint32_t> set, std::span<const Joins::Made *const> parts);

    Joins joins_;
    std::size_t most_;
    FlatMap<const Joins::Made *> places_; // of sets that some chain joins
    std::deque<Joins::Made> known_;
    Joins::Made scratch_;
    std::uint32_t count_ = 0;
};

// The kernels between the tensors that can be reached. Sets of tensors are searched once; tensors that a round finds are
// added after it, in order, so that the result does not depend on workers. Several processes go through the same sets, each
// searches those whose numbers it is offered, and all are told what was found before any goes on.
class Closure : public Served {
  public:
    Closure(const Space &space, const ClosureLimits &limits, Control &control, const Team &team);

    void run();

    // What kernels can start from: all that was reached, but for a single target.
    const std::vector<Tensor> &tensors() const { return tensors_; }
    // In the order of rounds, then of their inputs; only sets from which something can be computed.
    const std::deque<Kernels> &kernels() const { return kernels_; }
    const ClosureCounters &counted() const { return counted_; }

    const std::vector<Worker> &workers() const { return workers_; }

    std::string begin() override { return "closure"; }
    void begin(std::string_view) override {}
    std::size_t items() override { return kAnyItems; }
    void offer(std::size_t chunk) override;
    std::size_t waiting() override;
    std::size_t parked() const override { return idle_.load(std::memory_order_relaxed); }
    // Nothing more is offered or told: what is missing is left out, and what would follow from it.
    void end() override;
    std::string fresh() override;
    void learn(std::string_view made) override;

  private:
    using Sets = std::vector<std::uint32_t>; // so many tensors each, one set after another

    void add(Tensor t);
    void search(const Sets &sets, std::size_t size);
    Kernels search(const Sets &sets, std::size_t size, std::size_t place, BlockSearch &block) const;
    std::vector<Kernels> search_here(const Sets &sets, std::size_t size);
    std::vector<Kernels> search_together(const Sets &sets, std::size_t size);
    // The next chunk of the sets; none once all are known.
    std::optional<std::size_t> take();
    void know(std::size_t chunk, std::vector<Kernels> found, bool tell);

    const Space &space_;
    ClosureLimits limits_;
    Control &control_;
    Team team_;
    bool reached_ = false;
    std::vector<Tensor> tensors_;
    std::deque<Kernels> kernels_;
    ClosureCounters counted_;
    std::vector<Worker> workers_;

    std::size_t first_ = 0, end_ = 0; // chunks of the sets that are searched together
    std::atomic<std::size_t> idle_{0};
    std::mutex mutex_; // of all below
    std::condition_variable changed_;
    std::deque<std::size_t> offered_;
    std::map<std::size_t, std::vector<Kernels>> known_; // chunks of these sets and of the next, where others are ahead
    std::size_t missing_ = 0; // of the chunks of these
    Writer fresh_;
    bool ended_ = false;
};

} // namespace tilesmith
