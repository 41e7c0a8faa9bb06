#include "unordered.hpp"

#include <algorithm>

namespace tilesmith::test {
namespace {

class Unordered {
  public:
    Unordered(const Space &space, const KernelLimits &limits) : space_(space), limits_(limits) {}

    std::set<std::set<Made>> run() {
        pool_ = program_inputs(space_);
        grow();
        return std::move(found_);
    }

  private:
    bool there(Tensor t) const { return std::ranges::find(pool_, t) != pool_.end(); }

    Kernels search(const std::vector<Tensor> &inputs, Goal goal) const {
        Control control;
        return BlockSearch(space_, limits_.block, control).run(inputs, goal);
    }

    void grow() {
        std::vector<Tensor> inputs;
        choose(inputs, 0);
    }

    void choose(std::vector<Tensor> &inputs, std::size_t from) {
        if (!inputs.empty()) visit(inputs);
        if (inputs.size() == static_cast<std::size_t>(limits_.inputs)) return;
        for (std::size_t i = from; i < pool_.size(); ++i) {
            inputs.push_back(pool_[i]);
            choose(inputs, i + 1);
            inputs.pop_back();
        }
    }

    void visit(const std::vector<Tensor> &chosen) {
        std::vector<Tensor> inputs = chosen;
        std::ranges::sort(inputs);
        for (const Signature &signature : search(inputs, Goal::last).signatures) {
            made_.insert({inputs, signature.outputs});
            if (uses_all()) found_.insert(made_);
            made_.erase({inputs, signature.outputs});
        }
        if (made_.size() + 1 >= static_cast<std::size_t>(limits_.kernels)) return;
        for (const Signature &signature : search(inputs, Goal::between).signatures) {
            if (std::ranges::any_of(signature.outputs, [&](Tensor t) { return there(t); })) continue;
            const std::size_t before = pool_.size();
            for (const Tensor t : signature.outputs)
                if (t != kNoTensor) pool_.push_back(t);
            made_.insert({inputs, signature.outputs});
            grow();
            made_.erase({inputs, signature.outputs});
            pool_.resize(before);
        }
    }

    bool uses_all() const {
        return std::ranges::all_of(made_, [&](const Made &kernel) {
            return std::ranges::all_of(kernel.second, [&](Tensor t) {
                return t == kNoTensor || space_.target(class_of(t)) || std::ranges::any_of(made_, [&](const Made &other) {
                           return std::ranges::find(other.first, t) != other.first.end();
                       });
            });
        });
    }

    const Space &space_;
    KernelLimits limits_;
    std::vector<Tensor> pool_;
    std::set<Made> made_;
    std::set<std::set<Made>> found_;
};

} // namespace

Programs unordered(const Space &space, const KernelLimits &limits) {
    const auto found = Unordered(space, limits).run();
    return Programs(found.begin(), found.end());
}

Programs listed(const Space &space, const KernelLimits &limits) {
    Programs found;
    Control control;
    Listing listing(space, limits, control, {});
    listing.run();
    listing.plans().each([&](const Plan &plan) {
        std::set<Made> kernels;
        for (const Choice &choice : plan) kernels.insert({choice.kernels->inputs, choice.chosen().outputs});
        found.insert(kernels);
    });
    return found;
}

} // namespace tilesmith::test
