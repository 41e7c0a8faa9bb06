// The kernel level: programs of several kernels, each found by a block search of what its inputs allow.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "memo.hpp"
#include "pool.hpp"
#include "team.hpp"

namespace tilesmith {

struct KernelLimits {
    BlockLimits block;
    int inputs = 4;  // of one kernel
    int kernels = 1; // of a program
};

// The tensors that a program starts from: its inputs, each in every view that is part of the target.
std::vector<Tensor> program_inputs(const Space &space);

// Every program of at most so many kernels, once: its kernels come in the one order in which their keys grow (the set
// of inputs as a number, the newest tensor in the highest bit, then the signature). No kernel computes what is there,
// and everything that is computed is used.
class Listing {
  public:
    Listing(const Space &space, const KernelLimits &limits, Control &control, const Team &team = {});

    // Raises Overflow where more tensors stand between kernels than it can count.
    void run();

    // What was found, the same whoever searched. Programs of fewer kernels first; those of as many in the order in which
    // their kernels grow.
    const Plans &plans() const { return plans_; }
    std::uint64_t graphs() const { return book_.graphs(); }
    // Whether a number of graphs was asked for and found.
    bool full() const { return book_.full(); }
    const std::vector<Worker> &workers() const { return workers_; }
    Memo &memo() { return memo_; }

  private:
    friend class Explorer;
    static constexpr int kMostTensors = 64;
    static constexpr std::size_t kItemsPerWorker = 30;
    using Set = State::Set;

    void list_subsets();
    Item whole();
    std::vector<Item> split(class Explorer &explorer, std::size_t enough);
    void work(class Explorer &explorer, Track &track, Pool &pool, Worker &worker) const;

    const Space &space_;
    KernelLimits limits_;
    Control &control_;
    Team team_;
    Memo memo_;
    Book book_;
    Plans plans_;
    std::vector<Worker> workers_;
    int inputs_ = 0;                        // tensors that programs start from, under all names
    std::vector<std::vector<Class>> names_; // of the tensor that has a class, that class first
    std::vector<Set> subsets_;              // sorted
    std::vector<std::size_t> ends_;         // of the subsets of so many tensors
};

} // namespace tilesmith
