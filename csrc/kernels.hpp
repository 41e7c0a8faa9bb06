// The kernel level: programs of several kernels, each found by a block search of what its inputs allow.
#pragma once

#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "memo.hpp"
#include "pool.hpp"
#include "team.hpp"
#include "worker.hpp"

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

    // One of several processes. The first splits the work, all get what it was split into, and each is offered some of it
    // or gives some away, until it is ended. May be called while another thread runs it.
    //
    // What the first process split, for all; empty as long as it has not.
    std::string begin();
    void begin(std::string_view split);
    std::size_t items();
    void offer(std::size_t item);
    // Some of the work here, for another process; empty where there is none just now.
    std::string give();
    void receive(std::string_view given);
    std::size_t waiting() { return pool_.size(); }
    std::size_t parked() const { return pool_.parked(); }
    bool idle() { return pool_.idle(); }
    void end() { pool_.close(); }
    // Block searches made here since the last call.
    std::string fresh();
    void learn(std::string_view made);
    // Block searches that this process waits for, by the process that makes them; and what others ask of this one.
    std::vector<std::string> wanted();
    void ask(std::string_view wanted);
    // What was found here and not told before, work by work: what is finished, or after the search all.
    std::string found(bool all);

  private:
    friend class Explorer;
    static constexpr int kMostTensors = 64;
    static constexpr std::size_t kItemsPerWorker = 30;
    using Set = State::Set;

    void list_subsets();
    void prepare(std::vector<Item> items);
    Item whole();
    std::vector<Item> split(class Explorer &explorer, std::size_t enough);
    void work(class Explorer &explorer, Track &track, Pool &pool, Worker &worker) const;

    const Space &space_;
    KernelLimits limits_;
    Control &control_;
    Team team_;
    Memo memo_;
    Book book_;
    Pool pool_;
    Plans plans_;
    std::vector<Worker> workers_;
    int inputs_ = 0;                        // tensors that programs start from, under all names
    std::vector<std::vector<Class>> names_; // of the tensor that has a class, that class first
    std::vector<Set> subsets_;              // sorted
    std::vector<std::size_t> ends_;         // of the subsets of so many tensors

    std::mutex mutex_; // of all below
    std::vector<Item> items_;
    std::vector<std::uint64_t> ids_;                         // of their chains
    std::vector<std::pair<std::uint64_t, Segment *>> chains_; // here and not told
    bool split_ = false;
    std::size_t told_ = 0;    // of what the memo holds
    std::uint64_t given_ = 0; // items
};

} // namespace tilesmith
