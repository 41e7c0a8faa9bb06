// The concrete space searched by several processes.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "concrete.hpp"
#include "served.hpp"

namespace tilesmith::concrete {

// One process's part. Roots are offered in runs; what its threads leave to others may go to other processes.
class Ranked : public Served {
  public:
    using Graphs = std::vector<std::pair<std::size_t, Found>>; // by root

    Ranked(const Roots &roots, const Asking &asking, SharedAnswers &shared, Control &control, const Team &team);

    // What each worker did. Comes back once it is ended, or the control stopped.
    std::vector<Counts> run();

    std::string begin() override { return "roots"; }
    void begin(std::string_view) override {}
    std::size_t items() override { return (roots_.size() + run_ - 1) / run_; }
    void offer(std::size_t item) override;
    std::string give() override;
    void receive(std::string_view given) override;
    std::size_t waiting() override { return pool_.size(); }
    bool idle() override { return pool_.idle(); }
    void end() override { pool_.close(); }
    std::string found(bool all) override;

    // For the first process: what all found. The same whoever found it, and in one order.
    void tell(std::string_view found);
    std::size_t told() const { return told_.size(); }
    Graphs conclude() { return ordered({std::move(told_)}); }

  private:
    const Roots &roots_;
    const Asking &asking_;
    SharedAnswers &shared_;
    Control &control_;
    Team team_;
    std::size_t run_; // roots of an item
    Pool pool_;
    Graphs told_;
    std::mutex mutex_; // of what was found and not told
    Graphs found_;
};

} // namespace tilesmith::concrete
