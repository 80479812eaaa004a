#include "parallel/self_communicator.h"

#include <c10/util/Exception.h>

namespace emo {
namespace {

void copy(const at::Tensor& to, const at::Tensor& from) {
  TORCH_CHECK(to.numel() == from.numel() && to.scalar_type() == from.scalar_type(),
              "one rank: a collective from ", from.sizes(), " to ", to.sizes());
  if (to.numel() > 0 && to.data_ptr() != from.data_ptr()) to.view({-1}).copy_(from.view({-1}));
}

class SelfCommunicator : public Communicator {
 public:
  int64_t rank() const override { return 0; }
  int64_t size() const override { return 1; }
  void barrier() override {}
  std::unique_ptr<Pending> all_reduce_async(const at::Tensor&, ReduceOp) override {
    return std::make_unique<Done>();
  }
  void broadcast(const at::Tensor&, int64_t root) override { TORCH_CHECK(root == 0, "one rank"); }
  std::unique_ptr<Pending> all_gather_async(const at::Tensor& output,
                                            const at::Tensor& input) override {
    copy(output, input);
    return std::make_unique<Done>();
  }
  std::unique_ptr<Pending> reduce_scatter_async(const at::Tensor& output,
                                                const at::Tensor& input) override {
    copy(output, input);
    return std::make_unique<Done>();
  }
  std::unique_ptr<Pending> all_to_all_async(const at::Tensor& receive,
                                            const std::vector<int64_t>& receive_rows,
                                            const at::Tensor& send,
                                            const std::vector<int64_t>& send_rows) override {
    TORCH_CHECK(receive_rows == send_rows && send_rows.size() == 1, "one rank: uneven exchange");
    copy(receive, send);
    return std::make_unique<Done>();
  }
  at::Tensor all_to_all_uncounted(const at::Tensor& send, const std::vector<int64_t>& send_rows,
                                  std::vector<int64_t>* receive_rows) override {
    TORCH_CHECK(send_rows.size() == 1 && send_rows[0] == send.size(0), "one rank: ", send.sizes());
    *receive_rows = send_rows;
    return send.clone();
  }
  std::unique_ptr<Communicator> split(int64_t, int64_t) override { return self_communicator(); }
};

}  // namespace

std::unique_ptr<Communicator> self_communicator() { return std::make_unique<SelfCommunicator>(); }

}  // namespace emo
