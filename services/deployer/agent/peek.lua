-- Find the model a gRPC inference request is for, and name it in a header to route by.
--
-- The model's name is field 1 of ModelInferRequest, ModelReadyRequest and ModelMetadataRequest. A
-- client that sends the header itself is believed: the model server checks the name anyway.

local HEADER = "modelyard-model"
local FRAME_HEAD = 5 -- one byte "compressed", four bytes length
local MAX_FIELDS = 64 -- the name comes first in practice; never search for long

local function refuse(handle, status, message)
  handle:respond({
    [":status"] = "200",
    ["content-type"] = "application/grpc",
    ["grpc-status"] = status,
    ["grpc-message"] = message,
  })
end

local function varint(body, place)
  local value, factor = 0, 1
  for _ = 1, 10 do
    if place >= body:length() then
      return nil
    end
    local byte = string.byte(body:getBytes(place, 1))
    place = place + 1
    value = value + (byte % 128) * factor
    if byte < 128 then
      return value, place
    end
    factor = factor * 128
  end
  return nil
end

local function model_name(body)
  local place = FRAME_HEAD
  for _ = 1, MAX_FIELDS do
    local tag, size
    tag, place = varint(body, place)
    if tag == nil then
      return nil
    end
    local wire_type = tag % 8
    if wire_type == 2 then
      size, place = varint(body, place)
      if size == nil or size > body:length() - place then
        return nil
      end
      if tag == 10 then
        return size <= 63 and body:getBytes(place, size) or nil
      end
    elseif wire_type == 0 then
      size, place = varint(body, place)
      if size == nil then
        return nil
      end
      size = 0
    elseif wire_type == 1 then
      size = 8
    elseif wire_type == 5 then
      size = 4
    else
      return nil
    end
    place = place + size
  end
  return nil
end

function envoy_on_request(handle)
  if handle:headers():get(HEADER) ~= nil then
    return -- named by the client, and no route knows it: the route answers
  end
  local body = handle:body()
  if body == nil or body:length() < FRAME_HEAD then
    return refuse(handle, "3", "the request holds no message")
  end
  if string.byte(body:getBytes(0, 1)) ~= 0 then
    local message = "a compressed request must name its model in the header " .. HEADER
    return refuse(handle, "12", message)
  end
  local name = model_name(body)
  if name == nil or not string.match(name, "^[a-z][a-z0-9-]*$") then
    return refuse(handle, "5", "this model is not served here")
  end
  handle:headers():replace(HEADER, name) -- asked for anew: body() has waited
  handle:clearRouteCache()
end
