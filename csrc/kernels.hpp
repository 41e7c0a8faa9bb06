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
#include "served.hpp"
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
class Listing : public Served {
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

    std::string begin() override;
    void begin(std::string_view split) override;
    std::size_t items() override;
    void offer(std::size_t item) override;
    std::string give() override;
    void receive(std::string_view given) override;
    std::size_t waiting() override { return pool_.size(); }
    std::size_t parked() const override { return pool_.parked(); }
    bool idle() override { return pool_.idle(); }
    void end() override { pool_.close(); }
    // Block searches.
    std::string fresh() override;
    void learn(std::string_view made) override;
    std::vector<std::string> wanted() override;
    void ask(std::string_view wanted) override;
    // Chains.
    std::string found(bool all) override;

  private:
    friend class Explorer;
    static constexpr int kMostTensors = 64;
    static constexpr std::size_t kItemsPerWorker = 30;
    using Set = State::Set;

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

    std::mutex mutex_; // of all below
    std::vector<Item> items_;
    std::vector<std::uint64_t> ids_;                         // of their chains
    std::vector<std::pair<std::uint64_t, Segment *>> chains_; // here and not told
    bool split_ = false;
    std::size_t told_ = 0;    // of what the memo holds
    std::uint64_t given_ = 0; // items
};

} // namespace tilesmith
