#include "rank.hpp"

#include <algorithm>
#include <array>
#include <iterator>
#include <map>
#include <unordered_map>

namespace tilesmith {
namespace {

constexpr std::size_t kFew = 8;   // are kept for their estimate alone
constexpr double kWithin = 1.1;   // of the front
constexpr double kRounded = 1e-9; // sums of costs are equal but for rounding

// Bytes, launches, operations, traffic: in each less is better.
using Axes = std::array<double, 4>;

Axes operator+(const Axes &a, const Axes &b) {
    Axes sum = a;
    for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += b[i];
    return sum;
}

Axes operator-(const Axes &a, const Axes &b) {
    Axes difference = a;
    for (std::size_t i = 0; i < difference.size(); ++i) difference[i] -= b[i];
    return difference;
}

// Whether one is at most so many times the other in everything.
bool within(const Axes &a, const Axes &b, double times) {
    for (std::size_t i = 0; i < a.size(); ++i)
        if (a[i] > b[i] * (times + kRounded)) return false;
    return true;
}

// Points of which none is at least as good as another in everything.
class Front {
  public:
    void add(const Axes &point) {
        if (near(point, 1)) return;
        std::erase_if(points_, [&](const Axes &other) { return within(point, other, 1); });
        points_.push_back(point);
    }
    // Whether some point is as good in everything.
    bool near(const Axes &point, double times) const {
        return std::ranges::any_of(points_, [&](const Axes &other) { return times > 1 ? within(point, other, times) : within(other, point, 1); });
    }
    const std::vector<Axes> &points() const { return points_; }

  private:
    std::vector<Axes> points_;
};

// One implementation that fits, with its schedule.
struct Option {
    const Implementation *implementation = nullptr;
    Cost cost;
    bool split = false; // whether the number of split parts matters

    Axes axes() const { return {cost.bytes, 1, cost.flops, cost.traffic}; }
};

// Those of a signature for one number of split parts, the cheapest first.
struct Options {
    std::vector<Option> all;
    std::vector<Axes> front;
    Axes least{};
};

// The cheapest programs so far.
class Best {
  public:
    explicit Best(std::size_t keep) : keep_(keep) {}

    double limit() const {
        if (graphs_.size() < keep_) return Cost::kNever;
        return graphs_.empty() ? 0 : graphs_.rbegin()->first.first;
    }

    void offer(double seconds, std::uint64_t place, const std::vector<Scheduled> &kernels) {
        if (seconds >= limit()) return;
        graphs_.emplace(std::pair{seconds, place}, Derivation{kernels, seconds});
        if (graphs_.size() > keep_) graphs_.erase(std::prev(graphs_.end()));
    }

    const auto &graphs() const { return graphs_; }

  private:
    std::size_t keep_;
    std::map<std::pair<double, std::uint64_t>, Derivation> graphs_;
};

class Ranker {
  public:
    Ranker(const Space &space, const Sizes &sizes, const Device &device, std::span<const std::int64_t> splits, std::size_t keep)
        : scheduler_(space, sizes, device), splits_(splits), keep_(keep), cheapest_(keep), near_(keep > kFew ? keep : 0) {}

    Ranking run(const Plans &plans) {
        if (keep_ > kFew) each(plans, [&](const Plan &, std::size_t) { find_front(); });
        at_points_.assign(front_.points().size(), Best(1));
        set_limit();
        each(plans, [&](const Plan &plan, std::size_t split) { combine(plan, split); });

        std::map<std::pair<double, std::uint64_t>, Derivation> kept;
        const auto fill = [&](const Best &more, std::size_t most) {
            for (const auto &graph : more.graphs())
                if (kept.size() < most) kept.insert(graph);
        };
        fill(cheapest_, std::min(keep_, kFew));
        for (const Best &best : at_points_) fill(best, keep_);
        fill(near_, keep_);
        fill(cheapest_, keep_);
        for (auto &[key, graph] : kept) ranking_.graphs.push_back(std::move(graph));
        ranking_.schedules = scheduler_.tried;
        return std::move(ranking_);
    }

  private:
    // Calls with every program and number of split parts for which every kernel fits; `choices_` are its kernels' options.
    template <typename Visit> void each(const Plans &plans, const Visit &visit) {
        plans.each([&](const Plan &plan) {
            for (std::size_t split = 0; split < splits_.size(); ++split) {
                choices_.clear();
                for (const Choice &choice : plan) choices_.push_back(&options_of(choice)[split]);
                if (std::ranges::none_of(choices_, [](const Options *options) { return options->all.empty(); })) visit(plan, split);
            }
        });
    }

    const std::vector<Options> &options_of(const Choice &choice) {
        const Signature &signature = choice.chosen();
        const auto [found, fresh] = known_.try_emplace(&signature);
        std::vector<Options> &options = found->second;
        if (!fresh) return options;
        options.resize(splits_.size());
        for (const Implementation &made : signature.implementations) {
            ++ranking_.implementations;
            bool fits = false;
            const bool depends = scheduler_.depends_on_split(*choice.kernels, made, signature);
            Cost cost;
            for (std::size_t s = 0; s < splits_.size(); ++s) {
                if (s == 0 || depends) cost = scheduler_.best(*choice.kernels, made, signature, splits_[s]);
                if (!cost.fits()) continue;
                fits = true;
                options[s].all.push_back({&made, cost, depends});
            }
            ranking_.unfit += !fits;
        }
        for (Options &some : options) {
            if (some.all.empty()) continue;
            std::ranges::stable_sort(some.all, {}, [](const Option &option) { return option.cost.seconds; });
            Front front;
            some.least = some.all[0].axes();
            for (const Option &option : some.all) {
                const Axes axes = option.axes();
                front.add(axes);
                for (std::size_t i = 0; i < axes.size(); ++i) some.least[i] = std::min(some.least[i], axes[i]);
            }
            some.front = front.points();
        }
        return options;
    }

    Axes least() const {
        Axes sum{};
        for (const Options *options : choices_) sum = sum + options->least;
        return sum;
    }

    void find_front() {
        if (front_.near(least(), 1)) return;
        const auto extend = [&](const auto &self, std::size_t k, const Axes &before) -> void {
            if (k == choices_.size()) return front_.add(before);
            for (const Axes &axes : choices_[k]->front) self(self, k + 1, before + axes);
        };
        extend(extend, 0, {});
    }

    // Implementations are tried from the cheapest on, until the rest can't be kept.
    void combine(const Plan &plan, std::size_t split) {
        double rest = 0;
        for (const Options *options : choices_) rest += options->all[0].cost.seconds;
        grow(plan, split, 0, {}, least(), rest, false);
    }

    void grow(const Plan &plan, std::size_t split, double before, const Axes &axes, const Axes &rest_axes, double rest, bool splits) {
        const std::size_t k = chosen_.size();
        if (k == choices_.size()) {
            // What has no split is the same whatever the number of its parts.
            if (splits || split == 0) offer(before, axes);
            return;
        }
        const double cheapest = choices_[k]->all[0].cost.seconds;
        for (const Option &option : choices_[k]->all) {
            const double now = before + option.cost.seconds;
            const Axes reached = axes + option.axes(), left = rest_axes - choices_[k]->least;
            if (now + rest - cheapest >= cheapest_.limit()) {
                if (now + rest - cheapest >= limit_) return;
                if (!front_.near(reached + left, kWithin)) continue;
            }
            chosen_.push_back({plan[k].kernels, &plan[k].chosen(), option.implementation, option.cost});
            grow(plan, split, now, reached, left, rest - cheapest, splits || option.split);
            chosen_.pop_back();
        }
    }

    void offer(double seconds, const Axes &axes) {
        const std::uint64_t place = place_++;
        cheapest_.offer(seconds, place, chosen_);
        if (front_.near(axes, kWithin)) near_.offer(seconds, place, chosen_);
        for (std::size_t i = 0; i < at_points_.size(); ++i)
            if (within(axes, front_.points()[i], 1)) at_points_[i].offer(seconds, place, chosen_);
        set_limit();
    }

    // What is dearer is kept neither for the front nor for one of its points.
    void set_limit() {
        limit_ = near_.limit();
        for (const Best &best : at_points_) limit_ = std::max(limit_, best.limit());
    }

    Scheduler scheduler_;
    std::span<const std::int64_t> splits_;
    std::size_t keep_;
    Best cheapest_, near_;
    std::vector<Best> at_points_;
    Front front_;
    std::unordered_map<const Signature *, std::vector<Options>> known_;
    std::vector<const Options *> choices_;
    std::vector<Scheduled> chosen_;
    std::uint64_t place_ = 0;
    double limit_ = 0;
    Ranking ranking_;
};

} // namespace

Ranking rank(const Space &space, const Sizes &sizes, const Device &device, const Plans &plans,
             std::span<const std::int64_t> splits, std::size_t keep) {
    return Ranker(space, sizes, device, splits, keep).run(plans);
}

} // namespace tilesmith
